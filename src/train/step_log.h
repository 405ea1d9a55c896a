// What each step leaves behind in OUT/train.jsonl.
#pragma once

#include <cstdint>
#include <filesystem>
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

// Appends a line a step. On resume, after `steps_done`, lines past the checkpoint are cut off in
// place, because those steps will be run again; what is before them is never written anew.
class StepLog {
 public:
  // Error(kData) if the lines do not end with that of step `steps_done` without a gap: some were
  // lost. A file that is not there is begun. Error(kInternal) where it cannot be written.
  StepLog(const std::filesystem::path& path, int64_t steps_done);
  ~StepLog();
  StepLog(const StepLog&) = delete;
  StepLog& operator=(const StepLog&) = delete;

  // Error(kInternal) where the disk refuses; a torn line then lies past the checkpoint.
  void write(const StepRecord& record);
  // Returns when all lines are on disk: before a checkpoint says that their steps are done.
  void sync();

 private:
  [[noreturn]] void fail() const;

  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace dmc::train
