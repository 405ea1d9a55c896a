// The methods that a retrofit teaches, as a table: what a decision does to attention while it is
// still soft. A new one is a file in methods/ and a line in method_table.cpp; the policy of the
// same name (policy/policy_table.cpp) serves the model.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "train/stage.h"

namespace dmc::train {

struct Method {
  std::string_view name;     // of the policy, and in dmc_config
  std::string_view summary;  // for --help
  // Tokens that a slot averages, and newest tokens that are raw: RetrofitOptions::window and delay.
  struct Size {
    int64_t usual, largest;
    bool can_differ() const { return usual != largest; }
  };
  Size window, delay;
  std::optional<double> importance_offset;  // RetrofitOptions::importance_offset, as usual
  // `ramp`: the wanted ratio rises during the stage; else it is the target throughout.
  std::unique_ptr<TrainAttention> (*attention)(const model::ModelConfig&, const TrainOptions&,
                                               bool ramp);
  // For the model card:
  std::string_view title;          // with the paper it comes from
  std::string_view decides;        // "every KV head decides for every token whether ..."
  std::string_view window_counts;  // what tokens; empty: nothing that can differ
  std::string_view delay_counts;   // likewise
};

std::span<const Method> methods();  // method_table.cpp
const Method* find_method(std::string_view name);

// Error(kInvalidArgument) naming the window or the delay if `options` have one that their method
// cannot be trained with.
void require_windows(const TrainOptions& options);

// In methods/.
std::unique_ptr<TrainAttention> compressed_attention(const model::ModelConfig&, const TrainOptions&,
                                                     bool ramp);

}  // namespace dmc::train
