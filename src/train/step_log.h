// What each step leaves behind in OUT/train.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace dmc::train {

// A model's measure on held-out text, as it is served.
struct HeldOut {
  double loss = 0.0;  // nats per token
  double cr = 1.0;
};

// One line of the log, and what the progress bar shows.
struct StepRecord {
  int64_t step = 0;  // counted from 1 over all stages
  std::string stage;
  double loss = 0.0;                 // nats per token, language model alone
  double divergence = 0.0;           // nats per token from the teacher; 0 without distillation
  double extra_loss = 0.0;           // the stage's own (compression)
  double cr = 1.0, wanted_cr = 1.0;  // cr: of this step's batch, by decisions as they are served
  double compression_weight = 0.0, decision_offset = 0.0;
  double learning_rate = 0.0, gradient_norm = 0.0;
  int64_t tokens = 0;  // seen so far
  double tokens_per_second = 0.0;
  std::optional<HeldOut> held_out;  // measured after this step
  std::string saved;  // folder in OUT of the model that was written after this step; empty: none
};

// Appends a line a step; on resume, lines past the checkpoint are cut off, because those steps will
// be run again.
class StepLog {
 public:
  StepLog(const std::filesystem::path& path, int64_t steps_done);
  void write(const StepRecord& record);

 private:
  void check();
  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace dmc::train
