// The stages of training as a table: what attention a stage trains with, what compression it asks
// for, and what it leaves behind. A new stage is a file in stages/ and a line in stage_table.cpp.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "dist/group.h"
#include "nn/attention.h"
#include "nn/decoder.h"
#include "train/options.h"

namespace dmc::train {

// Where a step stands.
struct StepInfo {
  int64_t step = 0, steps = 0;  // within the stage
  int64_t global_step = 0;
  uint64_t seed = 0;                // of the run; noise is drawn from (seed, global_step, layer)
  double compression_weight = 0.0;  // of the compression loss, see policy::adapted_weight
  double decision_offset = 0.0;     // c of the decision logits, see policy::adapted_offset
  dist::Group* group = &dist::alone();  // whose ranks have equally many rows of the batch each
  int64_t part = 0, parts = 1;          // of this rank's rows, computed one after the other
};

// Attention of one stage, told about each step (about each part of it, where there are several);
// gathers what the stage's own loss needs.
class TrainAttention : public nn::AttentionStrategy {
 public:
  virtual void begin_step(const StepInfo&) {}
  // After the forward pass: added to the language-model loss; undefined if the stage has none. Its
  // value is that of the part's rows on all ranks; the gradient is one whose mean over the ranks is
  // its own. A collective, called once a part.
  virtual at::Tensor extra_loss() { return {}; }
  // After extra_loss, [] on the device; undefined: none. Of the part's tokens that had merged or
  // gone at the end of their sequences, by decisions with noise, which the loss is about, and
  // without, as the model would take them when it is used.
  virtual at::Tensor decided_fraction() const { return {}; }
  virtual at::Tensor served_fraction() const { return {}; }
  virtual double wanted_cr() const { return 1.0; }
  // Whether the decision offset is to follow the served ratio.
  virtual bool adapts_offset() const { return false; }
  // Of the latter by [layer][KV head]; empty before the first step and without decisions.
  virtual std::vector<std::vector<double>> cr_by_head() const { return {}; }
};

struct Stage {
  std::string_view name;
  std::unique_ptr<TrainAttention> (*attention)(const model::ModelConfig&, const TrainOptions&);
  void (*finish)(nn::Decoder&, const TrainOptions&);  // null: nothing to do
};

std::span<const Stage> stages();  // stage_table.cpp
const Stage* find_stage(std::string_view name);

// One per stage, in stages/.
std::unique_ptr<TrainAttention> dense_stage(const model::ModelConfig&, const TrainOptions&);
std::unique_ptr<TrainAttention> zero_out_stage(const model::ModelConfig&, const TrainOptions&);
std::unique_ptr<TrainAttention> retrofit_stage(const model::ModelConfig&, const TrainOptions&);
std::unique_ptr<TrainAttention> finetune_stage(const model::ModelConfig&, const TrainOptions&);
void finish_zero_out(nn::Decoder& model, const TrainOptions&);

}  // namespace dmc::train
