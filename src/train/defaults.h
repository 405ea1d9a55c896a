// Options of a training run that its user did not give, chosen from the model and the data so that
// a trained model is not harmed, each with the reason.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dmc::train {

struct RunFacts {
  double parameters = 0.0;     // of the whole model
  int64_t context = 0;         // tokens that it takes
  bool fresh = false;          // random weights: there is nothing to harm
  bool adapter_alone = false;  // the model's own weights do not train
  double text_tokens = 0.0;    // to train on, about
  int64_t hidden = 0;          // channels of the residual stream
  int64_t ramp_steps = 0;      // of a retrofit, in which the ratio rises; 0: it is none
  int64_t shares = 1;          // processes times parts that a batch must be shared by
};

// What the user gave; the rest is chosen.
struct Given {
  std::optional<int64_t> length, batch;
  std::optional<double> learning_rate, final_learning_rate, decision_scale;
};

struct Defaults {
  int64_t length = 0, batch = 0;
  double learning_rate = 0.0, final_learning_rate = 0.0;
  double decision_scale = 0.0;       // RetrofitOptions::decision_scale
  std::vector<std::string> reasons;  // one for each that was chosen: "length 512: ..."
};

Defaults choose_defaults(const RunFacts& facts, const Given& given);

// How often the text is read, and a sentence of warning where that is too often to learn anything
// but the text by heart, or where there is less text than one step takes; else empty.
double epochs(const RunFacts& facts, int64_t steps, const Defaults& run);
std::string data_warning(const RunFacts& facts, int64_t steps, const Defaults& run);

}  // namespace dmc::train
