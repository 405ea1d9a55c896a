// The methods that a retrofit teaches, as a table: what a decision does to attention while it is
// still soft. A new one is a file in methods/ and a line in method_table.cpp; the policy of the
// same name (policy/policy_table.cpp) serves the model.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "train/stage.h"

namespace dmc::train {

struct Method {
  std::string_view name;     // of the policy, and in dmc_config
  std::string_view summary;  // for --help
  int64_t usual_window, largest_window;
  // `ramp`: the wanted ratio rises during the stage; else it is the target throughout.
  std::unique_ptr<TrainAttention> (*attention)(const model::ModelConfig&, const TrainOptions&,
                                               bool ramp);
  // For the model card:
  std::string_view title;    // with the paper it comes from
  std::string_view decides;  // "every KV head decides for every token whether ..."
  std::string_view window;   // what the window's tokens are
};

std::span<const Method> methods();  // method_table.cpp
const Method* find_method(std::string_view name);

// Error(kInvalidArgument) naming --window if `options` have one that their method cannot be trained
// with.
void require_window(const TrainOptions& options);

// One per method, in methods/.
std::unique_ptr<TrainAttention> dmc_attention(const model::ModelConfig&, const TrainOptions&,
                                              bool ramp);
std::unique_ptr<TrainAttention> dms_attention(const model::ModelConfig&, const TrainOptions&,
                                              bool ramp);

}  // namespace dmc::train
