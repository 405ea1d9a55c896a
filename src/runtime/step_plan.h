// How a step is cut into passes through the model: each takes rows of different sequences through
// the products together.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "engine/model_runner.h"

namespace dmc::runtime {

// A sequence's part of a pass.
struct PassItem {
  engine::SequenceId sequence;
  std::span<const int32_t> tokens;  // every one in [0, vocab)
  bool ends_prompt;                 // the prompt is complete with them
};

// A row of the pass whose logits are wanted, and where they belong in the step's.
struct LogitRow {
  int64_t row, to;
};

struct Pass {
  std::vector<PassItem> items;  // of sequences that are all different; the decoding ones first
  size_t decoding = 0;  // items that take one token as a step of decoding; the others chunks
  std::vector<LogitRow> logits;

  int64_t rows() const;
  std::span<const PassItem> chunks() const { return std::span(items).subspan(decoding); }
};

struct StepPlan {
  std::vector<Pass> passes;
  int64_t logit_rows = 0;
};

struct PassLimits {
  int64_t chunk;       // tokens of one sequence in a pass
  int64_t chunk_rows;  // of all chunks in a pass, beyond the first chunk; decoding rows come on top
};

// A token alone is decoded, unless it is `observed`, and so a chunk of its prompt. A sequence's
// chunks depend on its own item only.
StepPlan plan_step(std::span<const engine::StepItem> items, const PassLimits& limits,
                   const std::function<bool(const engine::StepItem&)>& observed);

}  // namespace dmc::runtime
