// What the engine needs of a model: sequences that take tokens in, step by step, and logits back.
// Implemented in runtime/, by fakes in tests.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cache/kv_cache.h"
#include "engine/sampler.h"

namespace dmc::engine {

using cache::SequenceId;

// Of which tokens of an item logits are wanted.
enum class Wanted : uint8_t { kNone, kLast, kAll };

// What one sequence takes in during a step, behind the tokens that it holds.
struct StepItem {
  SequenceId sequence;
  std::span<const int32_t> tokens;  // one when decoding, more for a chunk of a prompt; never none
  bool ends_prompt = false;  // these tokens complete a prompt: policies that compress at its end do
  Wanted logits = Wanted::kLast;
};

struct StepResult {
  // [rows][vocab]: of each item in turn no row, that of its last token, or one of each token.
  std::vector<float> logits;
};

// A text that is being written.
struct Writing {
  SequenceId sequence;
  int32_t token;     // the newest, which the sequence has not taken in yet
  int64_t position;  // of the token after it
  SamplingOptions sampling;
  std::span<const int64_t> stop_ids;  // the text ends with one of these
};

class ModelRunner {
 public:
  static constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

  virtual ~ModelRunner() = default;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_positions() const = 0;

  // Error(kExhausted) where the number of sequences is limited and all are in use; fork() too.
  virtual SequenceId add_sequence() = 0;
  // A copy, which shares what lies in the cache until either goes on. A fork that is left as it is
  // is a snapshot: a compressed cache cannot be rolled back, but it can be forked anywhere, and the
  // pages that are full by then stay shared.
  virtual SequenceId fork(SequenceId parent) = 0;
  virtual void release(SequenceId sequence) = 0;

  // Every item's tokens are taken in, in one pass over the weights as far as they fit into one: any
  // mix of sequences (all different) that decode and that take in a chunk of a prompt. Numbers of a
  // sequence do not depend on what else is in the step (docs/architecture.md says how exactly).
  // All or nothing: Error(kExhausted) if fewer pages are free than pages_for() of all items
  // together, Error(kInvalidArgument) if a text becomes longer than max_positions(); every sequence
  // is then as it was.
  virtual StepResult step(std::span<const StepItem> items) = 0;

  // Pages of the cache that nobody holds, and all; kNoLimit where it grows as needed.
  virtual int64_t free_pages() const { return kNoLimit; }
  virtual int64_t total_pages() const { return kNoLimit; }
  // Free pages that `tokens` more tokens can take at most, in steps of at most `at_once` of them:
  // as if nothing was compressed any more.
  virtual int64_t most_pages(SequenceId, int64_t /*tokens*/, int64_t /*at_once*/) const {
    return 0;
  }
  // In one step.
  int64_t pages_for(SequenceId sequence, int64_t tokens) const {
    return most_pages(sequence, tokens, tokens);
  }
  // That hold what a sequence keeps, shared ones too; 0 where nobody counts.
  virtual int64_t pages_of(SequenceId) const { return 0; }

  // What a sequence holds, as bytes; nothing where the runner cannot say it. And a new sequence
  // that holds it to the bit, with the same model and options. The bytes may be anybody's:
  // Error(kData) says what is wrong with them, Error(kExhausted) that there is no room; nothing is
  // taken then.
  virtual std::optional<std::string> save(SequenceId) const { return {}; }
  virtual SequenceId restore(std::string_view);

  virtual int64_t length(SequenceId sequence) const = 0;  // tokens taken in
  // Tokens taken in by slots kept (mean over layers and KV heads). The default is a cache that
  // keeps every token.
  virtual double compression_ratio(SequenceId) const { return 1.0; }

  // Takes the newest token in and samples the one after it, again and again, at most `steps` times
  // and not beyond a stop token: the tokens sampled, one at least. The default does one step().
  // What comes out does not depend on how many steps are asked for at once.
  virtual std::vector<int32_t> write(const Writing& text, int64_t steps);
};

// A sequence of a runner, which must outlive it; released at the end of its scope.
class Sequence {
 public:
  static Sequence add(ModelRunner& runner) { return {runner, runner.add_sequence()}; }
  static Sequence restore(ModelRunner& runner, std::string_view bytes) {
    return {runner, runner.restore(bytes)};
  }
  ~Sequence() {
    if (runner_ != nullptr) runner_->release(id_);
  }
  Sequence(Sequence&& other) noexcept
      : runner_(std::exchange(other.runner_, nullptr)), id_(other.id_) {}
  Sequence& operator=(Sequence&& other) noexcept {
    std::swap(runner_, other.runner_);
    std::swap(id_, other.id_);
    return *this;
  }

  Sequence fork() const { return {*runner_, runner_->fork(id_)}; }
  SequenceId id() const { return id_; }
  int64_t length() const { return runner_->length(id_); }

 private:
  Sequence(ModelRunner& runner, SequenceId id) : runner_(&runner), id_(id) {}
  ModelRunner* runner_;
  SequenceId id_;
};

// A whole prompt (at least one token) in steps of some thousand tokens; the logits of its last one,
// [vocab]. What the steps before an error took in stays.
std::vector<float> prefill(ModelRunner& runner, SequenceId sequence,
                           std::span<const int32_t> tokens);
// Tokens of a given text, no prompt's end: the logits of all of them, [tokens][vocab], which are in
// memory at once: bring a long text in pieces.
std::vector<float> prefill_logits(ModelRunner& runner, SequenceId sequence,
                                  std::span<const int32_t> tokens);
// One token for each of `sequences`; logits [sequences][vocab].
std::vector<float> decode(ModelRunner& runner, std::span<const SequenceId> sequences,
                          std::span<const int32_t> tokens);

}  // namespace dmc::engine
