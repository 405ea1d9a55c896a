#include "train/out_dir.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/leftovers.h"
#include "train/checkpoint.h"
#include "train/retrofitted_model.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

// Where a model lies for a moment (trainer.cpp).
constexpr auto kBeingMeasured = "being-measured";

bool is_of_a_ratio(const fs::path& entry) {
  return entry.filename().string().starts_with("cr-") && fs::exists(entry / "config.json");
}

// What a run leaves in its folder.
bool is_of_a_run(const fs::path& entry) {
  const std::string name = entry.filename().string();
  return name.ends_with(".safetensors") || name == "model.safetensors.index.json" ||
         name == "config.json" || name == "README.md" || name == "train.jsonl" ||
         is_of_a_ratio(entry);
}

// What nobody but us has put there, and nobody will miss.
bool is_in_passing(const fs::path& entry) {
  const std::string name = entry.filename().string();
  return name == OutLock::kName || name == kBeingMeasured ||
         name.find(kTemporaryMark) != std::string::npos;
}

bool holds_something(const fs::path& folder) {
  std::error_code error;
  return std::ranges::any_of(fs::directory_iterator(folder, error),
                             [](const auto& entry) { return !is_in_passing(entry.path()); });
}

Error nothing_to_resume(const TrainOptions& options) {
  const std::string out = options.out_dir.string();
  const bool done = fs::exists(options.out_dir / "config.json");
  return invalid_argument(
      "resume", done ? out +
                           " holds a finished model and no checkpoint; there is nothing to go on "
                           "with"
                     : "there is no checkpoint in " + out + "; begin the run without --resume" +
                           (holds_something(options.out_dir) ? " and with --overwrite" : ""));
}

void remove_half_written(const fs::path& folder) {
  std::error_code ignored;
  fs::remove_all(folder / kBeingMeasured, ignored);
  remove_leftovers(folder);
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().filename().string().starts_with("cr-")) remove_leftovers(entry.path());
  }
}

void require_own_folder(const TrainOptions& options) {
  std::error_code error;
  if (fs::equivalent(options.out_dir, options.model_dir, error)) {
    throw invalid_argument(
        "out", options.out_dir.string() + " is the model's own folder; name another one");
  }
  if (fs::exists(options.out_dir) && !fs::is_directory(options.out_dir)) {
    throw invalid_argument("out", options.out_dir.string() + " is a file; name a folder");
  }
}

void require_expected_contents(const TrainOptions& options) {
  const bool unfinished = fs::exists(checkpoint_path(options.out_dir));
  if (options.resume && !unfinished) throw nothing_to_resume(options);
  if (options.resume || options.overwrite || !holds_something(options.out_dir)) return;
  throw invalid_argument(
      "out", options.out_dir.string() +
                 (unfinished ? " holds an unfinished run; add --resume to go on with it, or "
                               "--overwrite to begin anew"
                             : " is not empty; name another folder, or add --overwrite"));
}

void remove_earlier_runs(const fs::path& folder) {
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (is_of_a_run(entry.path())) old.push_back(entry.path());
  }
  for (const fs::path& path : old) fs::remove_all(path);
}

}  // namespace

void check_out_dir(const TrainOptions& options) {
  require_own_folder(options);
  require_expected_contents(options);
}

std::unique_ptr<OutLock> claim_out_dir(const TrainOptions& options) {
  require_own_folder(options);
  auto lock = std::make_unique<OutLock>(options.out_dir);
  require_expected_contents(options);
  remove_half_written(options.out_dir);
  if (options.overwrite && !options.resume) remove_earlier_runs(options.out_dir);
  return lock;
}

void prepare_out_dir(const TrainOptions& options) {
  make_out_dir(options.out_dir);
  const bool exists = fs::exists(checkpoint_path(options.out_dir));
  if (exists && !options.resume) {
    throw invalid_argument(
        "out", options.out_dir.string() +
                   " holds an unfinished run; add --resume to go on with it, or name another "
                   "folder");
  }
  if (!exists && options.resume) throw nothing_to_resume(options);
  for (const double cr : options.retrofit.save_at_cr) {
    const fs::path folder = options.out_dir / ratio_folder(cr);
    if (!options.resume && fs::exists(folder)) {
      throw invalid_argument(
          "save_at_cr",
          folder.string() + " is there already, from another run; name another --out");
    }
  }
}

}  // namespace dmc::train
