#include "runtime/positions.h"

#include "base/error.h"
#include "model/rope_frequencies.h"

namespace dmc::runtime {

int64_t choose_positions(const model::ModelConfig& config, int64_t wanted) {
  if (wanted <= 0) return config.context();
  if (config.learned_positions && wanted > config.max_positions) {
    throw invalid_argument(
        "a context of " + std::to_string(wanted) + " tokens was asked for, the model has learned " +
        std::to_string(config.max_positions) + " positions and cannot go beyond");
  }
  return wanted;
}

std::unique_ptr<const kernels::RopeTable> make_rope(const model::ModelConfig& config,
                                                    int64_t positions) {
  if (!config.rope) return nullptr;
  auto table = std::make_unique<kernels::RopeTable>(positions, model::rope_frequencies(config));
  if (config.dmc && config.dmc->zero_after_rope) table->keep_last_zero();
  return table;
}

}  // namespace dmc::runtime
