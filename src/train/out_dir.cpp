#include "train/out_dir.h"

#include <filesystem>
#include <vector>

#include "base/error.h"
#include "train/checkpoint.h"
#include "train/retrofitted_model.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

// What a run leaves in its folder.
bool is_of_a_run(const fs::path& entry) {
  const std::string name = entry.filename().string();
  return name.ends_with(".safetensors") || name == "model.safetensors.index.json" ||
         name == "config.json" || name == "README.md" || name == "train.jsonl" ||
         (name.starts_with("cr-") && fs::exists(entry / "config.json"));
}

}  // namespace

void claim_out_dir(const TrainOptions& options) {
  std::error_code error;
  if (fs::equivalent(options.out_dir, options.model_dir, error)) {
    throw invalid_argument(
        "out", options.out_dir.string() + " is the model's own folder; name another one");
  }
  if (fs::exists(options.out_dir) && !fs::is_directory(options.out_dir)) {
    throw invalid_argument("out", options.out_dir.string() + " is a file; name a folder");
  }
  if (options.resume || fs::is_empty(options.out_dir, error) || error) return;
  if (fs::exists(checkpoint_path(options.out_dir)) && !options.overwrite) {
    throw invalid_argument("out", options.out_dir.string() +
                                      " holds an unfinished run; add --resume to go on with " +
                                      "it, or --overwrite to begin anew");
  }
  if (!options.overwrite) {
    throw invalid_argument(
        "out", options.out_dir.string() + " is not empty; name another folder, or add --overwrite");
  }
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(options.out_dir)) {
    if (is_of_a_run(entry.path())) old.push_back(entry.path());
  }
  for (const fs::path& path : old) fs::remove_all(path);
}

void prepare_out_dir(const TrainOptions& options) {
  std::error_code error;
  fs::create_directories(options.out_dir, error);
  if (error) {
    throw invalid_argument("out",
                           "cannot make " + options.out_dir.string() + ": " + error.message());
  }
  const bool exists = fs::exists(checkpoint_path(options.out_dir));
  if (exists && !options.resume) {
    throw invalid_argument(
        "out", options.out_dir.string() +
                   " holds an unfinished run; add --resume to go on with it, or name another "
                   "folder");
  }
  if (!exists && options.resume) {
    throw invalid_argument("resume", "there is no checkpoint in " + options.out_dir.string());
  }
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
