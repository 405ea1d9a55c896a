// The last channel of each head of q and k, which becomes the decision channel: the rows of Wq and
// Wk (and of their biases) that compute it.
#pragma once

#include "nn/decoder.h"

namespace dmc::nn {

// Makes the channel 0 for every token, in a way that training can leave again: the rows are zeroed.
// Where q and k are normed, the norm's weight of the channel becomes 1, since with both at 0
// neither would ever get a gradient.
void clear_decision_channel(Decoder& model);

// Multiplies the channel by `factor`. Where q and k are normed, the norm's weight takes the factor:
// larger rows would shrink the other channels. With factor 0 the model is what it is under the
// dense policy, but does not learn decisions again.
void scale_decision_channel(Decoder& model, double factor);

}  // namespace dmc::nn
