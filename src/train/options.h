// Everything that defines a training run. A run resumed with other values would not be the same
// run, so the values are kept in its checkpoints and compared.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "model/model_config.h"

namespace dmc::train {

struct Stage;

struct StageRun {
  const Stage* stage = nullptr;
  int64_t steps = 0;
};

struct RetrofitOptions {
  std::string method = "dmc";  // what decisions do, see train/method.h
  // Where decisions come from, see model::DmcConfig::decision_source. With "adapter" the base model
  // stays as it is, unless train_base.
  std::string decisions = "neuron";
  bool train_base = false;
  double target_cr = 4.0;  // compression ratio at the end of the ramp
  int64_t window = 12;     // model::DmcConfig::window; methods say what is usual
  int64_t delay = 0;       // model::DmcConfig::delay, likewise
  double offset = 3.0;  // c of the decision and importance logits; the former's adapts at the end
  std::optional<double> importance_offset;  // c of the latter, if another
  double temperature = 0.1;                 // tau of the Gumbel-sigmoid
  double decision_scale = 10.0;     // factor on decision logits, folded into the weights at the end
  double compression_weight = 1.0;  // of the compression loss at first; it adapts from there
  double weight_gain = 0.4;         // how fast it adapts (policy::adapted_weight)
  double offset_gain = 3.0;         // how fast c adapts in the finetune stage (adapted_offset)
  double head_cr_cap = 16.0;        // a head's compression counts towards the target up to this
  std::string distill;              // a name from train/loss.h; empty: learn from the text alone
  double distill_weight = 1.0;      // the divergence's share of the loss, in (0, 1]
  std::vector<double> save_at_cr;   // ratios on the way whose models are kept, ascending
};

struct TrainOptions {
  std::filesystem::path model_dir, out_dir;
  std::vector<std::filesystem::path> data;  // empty: the built-in corpus
  std::vector<StageRun> stages;
  bool fresh = false;  // random weights instead of the model's
  int64_t batch = 4;   // sequences a step
  // Parts that each rank's share of a batch is computed in, one after the other: so many times less
  // memory for activations.
  int64_t accumulate = 1;
  int64_t length = 2048;
  double learning_rate = 3e-4, final_learning_rate = 3e-5;
  int64_t warmup_steps = 20;
  int64_t decay_steps = 0;  // the learning rate's cosine decay spans the last so many steps
  double weight_decay = 0.1, beta1 = 0.9, beta2 = 0.95, epsilon = 1e-5, clip = 1.0;
  uint64_t seed = 1;
  std::optional<int64_t> eos_token_id;  // what separates documents; not given: the model's
  RetrofitOptions retrofit;
  std::string weights_dtype = "f32";  // of the model that is written at the end

  // Not part of the run's identity: a run may go on elsewhere.
  std::string device = "cpu";      // or "cuda", "cuda:1"
  std::string precision;           // of products: f32 or bf16; empty: bf16 on CUDA, f32 on the CPU
  std::string command;             // the command line, for the model card
  int64_t checkpoint_every = 100;  // steps
  int64_t evaluate_every = 0;      // steps; 0: not on the way
  bool resume = false;
  bool overwrite = false;  // what an earlier run left in out_dir

  int64_t total_steps() const;
  int64_t ramp_steps() const;  // in which the ratio rises; 0: this is no retrofit
  bool adapter_alone() const { return retrofit.decisions == "adapter" && !retrofit.train_base; }
  // The token that separates documents of a text for this model. Errors as document_separator().
  int32_t separator(const model::ModelConfig& config) const;
  std::string identity_json() const;  // the values above that define the run
};

}  // namespace dmc::train
