// Speed and memory of models with and without compression, in one run.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "runtime/placed_model.h"

namespace dmc::runtime {

// A model and the policy it runs with.
struct Subject {
  std::string name;
  PlacedModel model;
  RunnerOptions options;  // max_positions is set as the contexts need it
};

struct MeasureOptions {
  std::vector<int64_t> contexts = {512, 1024, 2048};  // tokens in the cache before decoding
  std::vector<int64_t> batches = {1, 8};              // sequences decoded together
  int64_t decode_tokens = 32;                         // steps timed
  int repeats = 3;
  int64_t kv_budget = 0;  // above 0, instead of `batches`: as many as these bytes of cache hold
};

struct Measurement {
  std::string subject;
  int64_t context = 0, batch = 0;
  double prefill_tokens_per_second = 0.0;  // one sequence
  double decode_tokens_per_second = 0.0;   // all sequences together
  int64_t cache_bytes = 0;                 // of the whole batch, nothing shared
  double compression_ratio = 1.0;
};

// Subjects take turns within each repeat and medians are kept, so that a change of the machine's
// speed meets all alike. Results come point by point, subjects in their order. `text` must have
// max(contexts) tokens. Contexts beyond a model's own are allowed: speed does not depend on
// meaning. Error(kInvalidArgument) if kv_budget holds not one sequence. on_point is called after
// each timed point.
std::vector<Measurement> measure(const std::vector<Subject>& subjects,
                                 const std::vector<int32_t>& text, const MeasureOptions& options,
                                 const std::function<void(int64_t done, int64_t total)>& on_point);

}  // namespace dmc::runtime
