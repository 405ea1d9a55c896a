#include "train/step_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"
#include "base/file.h"

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

// The step of a line; 0: it is torn.
int64_t step_of(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("step")) return 0;
  return json["step"].is_number_integer() ? json["step"].get<int64_t>() : 0;
}

// The bytes of `text` that are lines of steps up to `steps_done`, one after the other.
size_t size_of_kept(const std::string& text, int64_t steps_done, const std::string& name) {
  int64_t last = 0;
  size_t kept = 0;
  while (last < steps_done) {
    const size_t end = text.find('\n', kept);
    const int64_t step =
        end == std::string::npos ? 0 : step_of(std::string_view(text).substr(kept, end - kept));
    if (step == 0 || (last != 0 && step != last + 1) || step > steps_done) {
      throw data_error(name + ": has no line of step " + std::to_string(last + 1) + ", and " +
                       std::to_string(steps_done) +
                       " are done; put the whole log back, or remove it to go on without");
    }
    last = step;
    kept = end + 1;
  }
  return kept;
}

}  // namespace

StepLog::StepLog(const std::filesystem::path& path, int64_t steps_done) : path_(path) {
  size_t kept = 0;
  if (steps_done > 0 && std::filesystem::exists(path)) {
    kept = size_of_kept(read_text_file(path), steps_done, path.string());
  }
  file_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0 || ::ftruncate(file_, static_cast<off_t>(kept)) != 0) fail();
}

StepLog::~StepLog() {
  if (file_ >= 0) ::close(file_);
}

void StepLog::write(const StepRecord& record) {
  if (!write_all(file_, to_line(record) + "\n")) fail();
}

void StepLog::sync() {
  // A file system without it gives no way to do better.
  if (::fsync(file_) != 0 && errno != EINVAL && errno != ENOTSUP) fail();
}

void StepLog::fail() const {
  throw internal_error(path_.string() +
                       ": the training log cannot be written: " + std::strerror(errno) +
                       "; when that is mended, --resume goes on from the last checkpoint");
}

}  // namespace dmc::train
