// The rows of Wq and Wk that compute the decision channel (the last of each head).
#pragma once

#include "models/llama.h"

namespace dmc::train {

void scale_decision_rows(models::Llama& model, double factor);

}  // namespace dmc::train
