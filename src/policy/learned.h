// What a learned policy makes of a token's two logits, for the CPU and a GPU alike.
#pragma once

#include <cfloat>
#include <cmath>

#include "base/host_device.h"

namespace dmc::policy {

// The constants of a model's decisions, from its dmc_config.
struct LearnedConstants {
  float scale = 1.0f;              // of the decision's logit
  float offset = 0.0f;             // c of the decision,
  float importance_offset = 0.0f;  // and of the importance
  float epsilon = FLT_EPSILON;     // added to the importance, so that no token weighs nothing
};

// Whether the token hides the one before it (DMC, equation 1). `bias` is of serving: above 0, more
// tokens do.
DMC_HOST_DEVICE bool decides_to_hide(const LearnedConstants& c, float logit, float bias) {
  return c.scale * logit - c.offset + bias > 0.0f;
}

// The token's weight in its slot (DMC, equation 2).
DMC_HOST_DEVICE float importance(const LearnedConstants& c, float logit) {
  return 1.0f / (1.0f + expf(-(logit + c.importance_offset))) + c.epsilon;
}

}  // namespace dmc::policy
