#include "train/step_log.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace dmc::train {
namespace {

std::string to_line(const StepRecord& r) {
  nlohmann::ordered_json line = {{"step", r.step},
                                 {"stage", r.stage},
                                 {"loss", r.loss},
                                 {"divergence", r.divergence},
                                 {"extra_loss", r.extra_loss},
                                 {"cr", r.cr},
                                 {"wanted_cr", r.wanted_cr},
                                 {"compression_weight", r.compression_weight},
                                 {"decision_offset", r.decision_offset},
                                 {"learning_rate", r.learning_rate},
                                 {"gradient_norm", r.gradient_norm},
                                 {"tokens", r.tokens},
                                 {"tokens_per_second", r.tokens_per_second}};
  if (r.held_out) {
    line["held_out_loss"] = r.held_out->loss;
    line["held_out_cr"] = r.held_out->cr;
  }
  if (!r.saved.empty()) line["saved"] = r.saved;
  return line.dump();
}

}  // namespace

StepLog::StepLog(const std::filesystem::path& path, int64_t steps_done) : path_(path) {
  std::string kept;
  if (steps_done > 0) {
    std::ifstream in(path);
    std::string line;
    for (int64_t i = 0; i < steps_done && std::getline(in, line); ++i) kept += line + "\n";
  }
  out_.open(path, std::ios::trunc);
  out_ << kept << std::flush;
  check();
}

void StepLog::write(const StepRecord& record) {
  out_ << to_line(record) << std::endl;
  check();
}

void StepLog::check() {
  if (!out_) throw internal_error(path_.string() + ": cannot write the training log");
}

}  // namespace dmc::train
