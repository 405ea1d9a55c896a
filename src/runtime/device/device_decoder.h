// The decoder's pieces on a device, as launches, with the decisions taken there. Nothing in a pass
// waits for the host, so it can be recorded.
#pragma once

#include <functional>

#include "kernels/rope.h"
#include "model/model_config.h"
#include "runtime/decoder.h"
#include "runtime/device/device_weights.h"
#include "runtime/device/passing_buffers.h"
#include "runtime/device/prompt_end_buffers.h"
#include "runtime/device/sequence_table.h"
#include "runtime/policy_choice.h"

namespace dmc::runtime {

struct DeviceDecoderLimits {
  int64_t chunk;  // tokens of a prompt in one pass
  int batch;      // sequences of a decode step
  int64_t max_positions;
};

// Rows of a step, all of one size; the host's side of StepRows.
struct StepInput {
  std::vector<int32_t> rows;  // in the cache; -1: not in use
  std::vector<int32_t> tokens, positions;
  std::vector<kernels::cuda::SamplingRow> sampling;
};

class DeviceDecoder final : private Backend {
 public:
  // All but `limits` and `choice` must outlive it. Error(kInvalidArgument) for what the device does
  // not have.
  DeviceDecoder(kernels::cuda::Device& device, const model::ModelConfig& config,
                const DeviceWeights& weights, const PolicyChoice& choice, SequenceTable& table,
                const DeviceDecoderLimits& limits);

  // What the next pass over a prompt is about: a chunk of one sequence, at positions `position`...
  void set_prompt(int row, int64_t position, std::span<const int32_t> tokens);
  // Takes the chunk's `tokens` tokens in.
  void prefill(int64_t tokens);

  // The prompt of `length` tokens that came by prefill() is complete: policies that compress
  // prompts do so now.
  void end_prompt(int row, int64_t length);

  // What the next steps are about.
  void set_step(const StepInput& input);
  // One step of `batch` sequences: takes their tokens in, leaves logits, and puts the tokens that
  // follow in the place of those taken in, so that another step can follow at once.
  void step(int batch);

  // Logits [count][vocab] of rows first..first+count-1 of the last pass; at most logit_rows() at a
  // time.
  const float* logits(int64_t first, int64_t count);
  int64_t logit_rows() const { return logits_.size() / config_.vocab_size; }
  const float* step_logits() const { return logits_.get(); }
  const int32_t* step_tokens() const { return tokens_.get(); }

 private:
  void embed(int64_t rows) override;
  bool has_norm(NormAt at) const override { return norm_at(at, 0).present(); }
  void norm(NormAt at, int layer, bool adds_delta, bool replaces_x, int64_t rows) override;
  void multiply(Product product, int layer, int64_t rows) override;
  void apply_adapter(int layer, int64_t rows) override;
  void split_heads(int layer, int64_t rows) override;
  void activate(int64_t rows) override;

  const DeviceNorm& norm_at(NormAt at, int layer) const;
  // Sets what of a ratio that is held depends on the cache. Before the pass it is for.
  void set_biases(const kernels::cuda::Batch& batch);
  kernels::cuda::Batch batch_of(int batch) const;  // the first rows of rows_
  kernels::cuda::NormSpec norm_spec(const DeviceNorm& norm) const;
  void multiply(const DeviceLinear& linear, const kernels::cuda::Numbers& x, int64_t rows,
                float* y);
  void attend_prompt(int layer, int tokens);
  // Token by token, for policies whose choice depends on every query on the way.
  void attend_prompt_in_steps(int layer, int tokens);
  // A step of the layer with the tokens in rows first..first + batch.batch - 1 of the pass.
  void attend_step(int layer, const kernels::cuda::Batch& batch, int64_t first);
  // Of the layer, where the cache's row `row` has its first stream.
  int64_t first_stream(int layer, int row) const;
  kernels::cuda::Numbers rounded(const float* x, int64_t count);
  kernels::cuda::Numbers numbers(Buffer<std::byte>& buffer) const;
  Buffer<std::byte> allocate_numbers(int64_t count);

  kernels::cuda::Device& device_;
  const model::ModelConfig& config_;
  const DeviceWeights& weights_;
  SequenceTable& table_;
  const bool decides_;
  const float bias_;
  const double held_cr_;  // 0: none is held
  const kernels::cuda::Activation activation_;
  const float scale_;
  const kernels::cuda::DecodeShape shape_;
  const kernels::cuda::EvictionSpec eviction_;  // its rule kNone: no slot goes in a step

  Buffer<float> cos_, sin_;        // [max_positions][head_dim / 2]
  Buffer<float> biases_;           // [batch]; empty: no ratio is held
  int bias_stride_ = 0;            // between rows of a pass; 0: all are of one sequence
  Buffer<double> opening_shares_;  // [layers][kv_heads]; empty: nothing is forced
  Buffer<int32_t> rows_, tokens_, positions_;
  Buffer<kernels::cuda::SamplingRow> sampling_;
  Buffer<float> x_, delta_, projected_, q_, k_, v_, mixed_;
  Buffer<float> own_key_, own_value_;
  Buffer<std::byte> normed_, inner_, rounded_;
  Buffer<float> adapter_input_, adapted_;  // empty: the model has no adapter
  Buffer<float> transformed_;  // of the rows of logits; empty: the head takes them as they are
  Buffer<uint8_t> merge_;
  Buffer<float> importance_, logits_;
  Buffer<int32_t> visible_;
  PassingBuffers passing_;
  PromptEndBuffers prompt_end_;
  Buffer<float> eviction_scores_;
  Buffer<std::byte> workspace_memory_;
  kernels::cuda::DecodeWorkspace workspace_;
};

}  // namespace dmc::runtime
