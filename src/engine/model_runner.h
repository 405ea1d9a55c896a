// What the engine needs of a model: take tokens in, give logits back. Implemented in
// runtime/decoder_runner.h, by fakes in tests.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cache/kv_cache.h"
#include "engine/sampler.h"

namespace dmc::engine {

using cache::SequenceId;

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
  virtual ~ModelRunner() = default;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_positions() const = 0;

  virtual SequenceId add_sequence() = 0;
  virtual SequenceId fork(SequenceId parent) = 0;
  virtual void release(SequenceId sequence) = 0;

  // Takes `tokens` in behind what the sequence holds; the logits of the last one, [vocab_size].
  virtual std::vector<float> prefill(SequenceId sequence, std::span<const int32_t> tokens) = 0;
  // One token for each of `sequences` (all different); logits [sequences][vocab_size].
  virtual std::vector<float> decode(std::span<const SequenceId> sequences,
                                    std::span<const int32_t> tokens) = 0;

  // Takes the newest token in and samples the one after it, again and again, at most `steps` times
  // and not beyond a stop token: the tokens sampled, one at least. The default does one step, by
  // decode() and sample(). What comes out does not depend on how many steps are asked for at once.
  virtual std::vector<int32_t> write(const Writing& text, int64_t steps);

  // As prefill(), with the logits of all tokens, [tokens][vocab_size], to score a given text. All
  // of them are in memory at once: bring a long text in pieces. The default decodes token by token.
  virtual std::vector<float> prefill_logits(SequenceId sequence, std::span<const int32_t> tokens);
  // Tokens the sequence has seen by slots it keeps (mean over layers and KV heads). The default is
  // a cache that keeps every token.
  virtual double compression_ratio(SequenceId) const { return 1.0; }
};

}  // namespace dmc::engine
