#include "train/decision_rows.h"

#include <ATen/core/grad_mode.h>

namespace dmc::train {

void scale_decision_rows(models::Llama& model, double factor) {
  const at::NoGradGuard no_grad;
  const int64_t d = model.config().head_dim;
  for (const auto& [name, weight] : model.parameters()) {
    if (name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight")) {
      weight.view({-1, d, weight.size(1)}).select(1, d - 1).mul_(factor);
    }
  }
}

}  // namespace dmc::train
