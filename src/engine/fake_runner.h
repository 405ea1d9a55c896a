// For tests: a model whose next token depends on all it has seen, so that any slip changes the
// text, with a cache of few pages, shared by forks, whose streams compress by what they have seen.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/rng.h"
#include "engine/model_runner.h"

namespace dmc::engine {

class FakeRunner : public ModelRunner {
 public:
  static constexpr int64_t kVocab = 40, kPageSlots = 4, kStreams = 2;

  explicit FakeRunner(int64_t pages = kNoLimit, int64_t positions = 200, int64_t sequences = 1000)
      : pages_(pages), positions_(positions), most_sequences_(sequences) {}

  int64_t vocab_size() const override { return kVocab; }
  int64_t max_positions() const override { return positions_; }
  SequenceId add_sequence() override { return add({}); }
  SequenceId fork(SequenceId parent) override { return add(states_.at(parent)); }
  void release(SequenceId sequence) override { DMC_CHECK(states_.erase(sequence) == 1); }

  StepResult step(std::span<const StepItem> items) override {
    ++steps;
    if (fail_next > 0) {
      --fail_next;
      throw internal_error("the device is gone");
    }
    check(items);
    StepResult result;
    for (const StepItem& item : items) {
      State& state = states_.at(item.sequence);
      for (size_t i = 0; i < item.tokens.size(); ++i) {
        state.take(item.tokens[i]);
        const bool last = i + 1 == item.tokens.size();
        if (last && item.tokens.size() > 1 && cuts_matter) state.end_chunk(item.tokens.size());
        if (last && item.ends_prompt && prompts_end) state.end_prompt();
        if (item.logits == Wanted::kAll || (last && item.logits == Wanted::kLast)) {
          append_logits(state.hash, &result.logits);
        }
      }
    }
    return result;
  }

  int64_t free_pages() const override {
    if (pages_ == kNoLimit) return kNoLimit;
    std::set<const bool*> used;
    for (const auto& [id, state] : states_) {
      for (const auto& pages : state.pages) {
        for (const Page& page : pages) used.insert(page.get());
      }
    }
    return pages_ - std::ssize(used);
  }
  int64_t total_pages() const override { return pages_; }
  // Where chunks pass by the cache, they do so in pages of their own.
  int64_t most_pages(SequenceId sequence, int64_t tokens, int64_t at_once) const override {
    const State& state = states_.at(sequence);
    const int64_t chunk = std::min(tokens, at_once);
    int64_t pages = chunks_pass && chunk > 1 ? to_hold(chunk) : 0;
    for (int i = 0; i < kStreams; ++i) {
      pages += to_hold(state.slots[i] + tokens) - to_hold(state.slots[i]) + state.copies(i);
    }
    return pages;
  }
  int64_t pages_of(SequenceId sequence) const override {
    return to_hold(states_.at(sequence).slots[0]) + to_hold(states_.at(sequence).slots[1]);
  }
  std::optional<std::string> save(SequenceId sequence) const override {
    const State& state = states_.at(sequence);
    ByteWriter to;
    to.put(state.hash);
    to.put(state.tokens);
    for (int64_t slots : state.slots) to.put(slots);
    return to.take();
  }
  SequenceId restore(std::string_view bytes) override {
    ByteReader from(bytes, "the state");
    State state;
    state.hash = from.take<uint64_t>();
    state.tokens = from.take<int64_t>();
    for (int i = 0; i < kStreams; ++i) {
      const auto slots = from.take<int64_t>();
      while (state.slots[i] < slots) state.open(i);
    }
    from.require_end();
    return add(state);
  }
  int64_t length(SequenceId sequence) const override { return states_.at(sequence).tokens; }
  double compression_ratio(SequenceId sequence) const override {
    const State& state = states_.at(sequence);
    return static_cast<double>(state.tokens) * kStreams /
           static_cast<double>(state.slots[0] + state.slots[1]);
  }

  // Whether a prompt's end changes what comes after it, as of policies that compress there.
  bool prompts_end = true;
  // Whether what is left behind depends on the chunks that tokens came in.
  bool cuts_matter = false;
  bool chunks_pass = false;
  size_t sequences() const { return states_.size(); }
  int64_t steps = 0, fail_next = 0;
  size_t most_items = 0;

 private:
  static int64_t to_hold(int64_t slots) { return (slots + kPageSlots - 1) / kPageSlots; }
  using Page = std::shared_ptr<const bool>;
  struct State {
    uint64_t hash = 17;
    int64_t tokens = 0;
    int64_t slots[kStreams] = {};

    std::vector<Page> pages[kStreams];

    void take(int32_t token) {
      hash = mix64(hash ^ static_cast<uint64_t>(token));
      if (tokens == 0 || hash % 3 == 0) open(0);
      if (tokens == 0 || hash % 2 == 0) open(1);
      ++tokens;
    }
    // A page that others hold, too, is copied before it is written on.
    bool copies(int stream) const {
      return slots[stream] % kPageSlots != 0 && pages[stream].back().use_count() > 1;
    }
    void open(int stream) {
      if (copies(stream)) pages[stream].pop_back();
      if (++slots[stream] > kPageSlots * std::ssize(pages[stream])) {
        pages[stream].push_back(std::make_shared<const bool>());
      }
    }
    void end_chunk(uint64_t size) { hash = mix64(hash ^ size << 32); }
    void end_prompt() { hash = mix64(hash ^ 0x1234567); }
  };

  SequenceId add(State state) {
    if (std::ssize(states_) >= most_sequences_) throw exhausted("all sequences are in use");
    states_[++last_] = state;
    return last_;
  }
  void check(std::span<const StepItem> items) {
    std::set<SequenceId> all;
    int64_t pages = 0;
    DMC_CHECK(!items.empty());
    most_items = std::max(most_items, items.size());
    for (const StepItem& item : items) {
      DMC_CHECK(!item.tokens.empty() && all.insert(item.sequence).second);
      pages += pages_for(item.sequence, std::ssize(item.tokens));
      DMC_CHECK(length(item.sequence) + std::ssize(item.tokens) <= positions_);
    }
    if (pages > free_pages()) throw exhausted("the pages do not suffice");
  }
  static void append_logits(uint64_t hash, std::vector<float>* logits) {
    for (uint64_t id = 0; id < kVocab; ++id) {
      logits->push_back(static_cast<float>(random_uniform(hash, 0, id) * 6.0));
    }
  }

  int64_t pages_, positions_, most_sequences_;
  std::map<SequenceId, State> states_;
  SequenceId last_ = 0;
};

}  // namespace dmc::engine
