// A model with the engine that writes its texts, and a second cache in which texts are scored.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "answer.h"
#include "engine/engine_loop.h"
#include "eval/log_probs.h"
#include "eval/score.h"
#include "runtime/placed_model.h"
#include "text/chat_template.h"

namespace dmc::python {

constexpr int kPageSlots = 16;  // cache::CacheConfig's and the device's

struct EngineOptions {
  std::string weights, kv = "f32", device = "cpu";  // weights empty: as the files have them
  std::filesystem::path adapter;
  runtime::PolicyOptions policy;
  int64_t context = 0;  // tokens; 0: the model's own
  int64_t max_sequences = 64;
  int64_t cache_bytes = 0;  // of pages; 0: as many as it takes
  bool share_prefixes = true;
};

// A request that is on its way. Dropping it cancels the request.
class Ticket {
 public:
  Ticket(std::shared_ptr<Answer> answer, std::shared_ptr<engine::Request> request)
      : answer_(std::move(answer)), request_(std::move(request)) {}
  ~Ticket() { cancel(); }

  std::vector<Event> take(double seconds) { return answer_->take(seconds); }
  bool done() const { return answer_->done(); }
  void cancel() { request_->cancel(); }  // of one that has ended this means nothing

 private:
  std::shared_ptr<Answer> answer_;
  std::shared_ptr<engine::Request> request_;
};

// All methods may be called from any thread.
class Engine {
 public:
  using Tokens = std::vector<int32_t>;

  // Errors as load_model() and make_runner() have, and for names in `options` that mean nothing.
  Engine(const std::string& model, const EngineOptions& options);
  ~Engine() { stop(); }

  Tokens encode(const std::string& text, bool as_prompt) const;
  std::string decode(const Tokens& ids) const { return tokenizer_.decode(ids); }
  // JSON: messages as in the OpenAI API, and an object of what else the template may ask for.
  Tokens encode_chat(const std::string& messages, const std::string& variables,
                     bool reply_follows) const;

  std::unique_ptr<Ticket> submit(Tokens prompt, Asked asked);
  void stop() { loop_.stop(); }  // what runs is told so, and nothing is taken any more

  // As `dmc eval` rates windows of that many tokens of a text. `progress` may throw to end it.
  eval::Score score(const Tokens& text, int64_t window,
                    const std::function<void(int64_t)>& progress);
  // Of each continuation after `context`, which is taken in once.
  std::vector<eval::LogLikelihood> rate(const Tokens& context,
                                        const std::vector<Tokens>& continuations);
  int64_t bytes_of(int64_t slots) const;  // that a KV head keeps
  int64_t page_bytes() const;             // of the cache

  engine::EngineLoop& loop() { return loop_; }
  // What listeners of requests refer to: it lives as long as the loop.
  void keep(std::shared_ptr<void> heard);

  const model::ModelConfig& config() const { return model_.model().config; }
  const runtime::Model& model() const { return model_.model(); }
  const EngineOptions& options() const { return options_; }
  const std::filesystem::path& path() const { return path_; }
  int64_t context() const { return runner_->max_positions(); }
  std::string policy() const { return std::string(runner_->policy().name); }

 private:
  engine::EngineLoop::Options loop_options() const;
  void check(const Tokens& tokens, const char* field) const;
  runtime::Runner& scorer();

  EngineOptions options_;
  std::filesystem::path path_;
  runtime::PlacedModel model_;
  text::Tokenizer tokenizer_;
  std::optional<text::ChatTemplate> chat_;
  std::vector<int64_t> reply_ids_;
  std::unique_ptr<runtime::Runner> runner_;
  std::mutex scoring_;                       // guards the next two
  std::unique_ptr<runtime::Runner> scorer_;  // made when first asked for
  std::vector<std::shared_ptr<void>> kept_;
  engine::EngineLoop loop_;  // last: its thread uses what is above
};

}  // namespace dmc::python
