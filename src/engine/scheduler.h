// Many requests on one model: in each step every text that is being written takes one token in, and
// what is left of the step goes to the prompts (continuous batching with chunked prefill).
//
// What a sequence will take of the cache is not known before it has, because the model decides how
// much it compresses. So a request is let in when the pages that texts took so far, of those that
// they could have taken at most, say that it will fit, with room for those that run to grow; if
// that was too hopeful, the youngest text gives its pages back and is taken in again later. The
// oldest can always finish: a request that could not have the cache to itself without any
// compression is refused at the door.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "engine/model_runner.h"
#include "engine/prefix_cache.h"
#include "engine/request.h"
#include "engine/scheduled_text.h"
#include "engine/session_store.h"

namespace dmc::engine {

struct SchedulerOptions {
  int64_t max_sequences = 64;  // that run at once
  int64_t step_tokens = 512;   // of prompts in a step; a text being written takes one beside
  // Prompts come in chunks of so many tokens, whatever else is in a step, so that what they leave
  // in the cache does not depend on that. The logits of a chunk are in memory at once.
  int64_t chunk_tokens = 256;
  // What a token leaves depends on which chunk it came in by more than the last bits: slots are
  // rounded, or a ratio is held. A text that is taken in again is then taken in token by token.
  bool chunks_matter = false;
  // Pages that a text could take at most by those that it takes: until texts have shown what the
  // model does; and the part of what they show that is counted on. 0: none, where the runner's
  // bound is what texts take.
  double expected_cr = 1.0;
  double cr_margin = 0.85;
  int64_t growth_tokens = 256;  // that each running text is kept room for
  size_t snapshots = 0;         // of prompts that are kept, one behind each chunk; 0: none
  // Where snapshots are saved and come from after a restart; must outlive it. Null: nowhere.
  SessionStore* sessions = nullptr;
  // Says at which ratio a sequence is held from now on; empty where the model decides.
  std::function<void(SequenceId, double)> hold_ratio;
  // Of requests that name no ratio: while there is room, and while requests wait for pages.
  double least_cr = 0.0, most_cr = 0.0;
  // What a sequence keeps by layer and KV head; empty where nobody asks.
  std::function<std::vector<int64_t>(SequenceId)> slots_of;
};

// Since the start.
struct SchedulerCounts {
  int64_t steps = 0, items = 0;  // items: texts in all steps
  int64_t prompt_tokens = 0, cached_tokens = 0, written_tokens = 0;
  int64_t preemptions = 0, refused = 0, cancelled = 0, failed = 0;
  int64_t stopped = 0, full_length = 0;          // texts
  double cache_tokens = 0.0, cache_slots = 0.0;  // of ended texts: taken in, and what was kept
  int failed_steps_in_a_row = 0;
};

// Now.
struct SchedulerLoad {
  int64_t running = 0, waiting = 0;   // texts
  int64_t free_pages = 0, pages = 0;  // of the cache; kNoLimit where it grows as needed
  int64_t tokens = 0;                 // that running texts have taken in
  double slots = 0.0;                 // that they keep (mean over layers and KV heads)
  int64_t running_pages = 0;          // that running texts hold, shared ones for each of them
  double expected_cr = 1.0;           // the mean seen, new texts counting more
  double held_cr = 0.0;               // of requests that name no ratio; 0: the model decides
  size_t snapshots = 0;
};

class Scheduler {
 public:
  // `runner` must outlive it.
  Scheduler(ModelRunner& runner, SchedulerOptions options);
  ~Scheduler();

  // Error(kInvalidArgument) if an option is out of range, or if the request can never be served: it
  // does not fit the model's context or the cache.
  void submit(std::shared_ptr<Request> request);
  // Whether there was anything to do. What goes wrong is told to those whose step it was.
  bool step();
  // All are told, and everything is given back.
  void fail_all(const Error& error);

  const SchedulerCounts& counts() const { return counts_; }
  SchedulerLoad load() const;

 private:
  using Job = ScheduledJob;
  using Text = ScheduledText;
  using Item = StepPart;
  using TextPtr = std::unique_ptr<Text>;

  void check(const Request& request) const;
  void drop_cancelled();
  void remove_ended();
  // Admission.
  void admit();
  bool may_start(const Text& text, const Sequence* snapshot) const;
  void make_room(const Text& text);
  double pages_ratio(const Text& text) const;
  double counted_on(const Text& text) const;
  int64_t pages_to_come(const Text& text) const;
  int64_t pages_to_start(const Text& text, const Sequence* snapshot) const;
  const Sequence* snapshot_for(const Text& text) const;
  bool shares_soon(const Text& text) const;
  void find_branch(Text& text, int64_t alike) const;
  void find_branches();
  double ratio_now() const;
  double ratio_of(const Text& text) const;
  void hold_ratios();
  void start(TextPtr text);
  void run_text(TextPtr text);
  void wait(TextPtr text);
  // A step.
  std::vector<Item> plan();
  int64_t next_chunk(const Text& text) const;
  Item item(Text& text, int64_t tokens) const;
  void fit(std::vector<Item>* items);
  bool need_less(std::vector<Item>* items);
  void preempt(std::vector<Item>* items);
  void run(std::vector<Item> items);
  void step_failed(std::vector<Item>* items, const Error& error);
  void take_over(std::vector<Item>& items, std::span<const float> logits);
  void rate_prompt(const Item& item) const;
  std::vector<Drawing> drawings(std::vector<Item>& items);
  void branch(Text& first, std::span<const float> row, std::vector<Drawing>* drawn);
  static void draw(Drawing& drawing);
  void deliver(Drawing& drawing);
  CacheUse cache_use(const Text& text) const;
  // The end of texts.
  void end(Text& text, FinishReason reason, std::optional<int32_t> stop_token);
  void fail(Job& job, const Error& error);
  void snapshot(const Text& text);
  void save_session(std::span<const int32_t> tokens, const Sequence& sequence);
  void resume_session(const Text& text);
  void learn_ratio(const Text& text);

  ModelRunner& runner_;
  SchedulerOptions options_;
  Sequence empty_;  // of which most_pages() is asked for a new one
  PrefixCache prefixes_;
  std::deque<TextPtr> waiting_;  // both in the order of arrival
  std::vector<TextPtr> running_;
  SchedulerCounts counts_;
  double expected_cr_, held_cr_;
  bool short_of_pages_ = false;  // somebody waits for them
  int64_t arrivals_ = 0;
};

}  // namespace dmc::engine
