// Options that several commands share, and what they stand for.
#pragma once

#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/placed_model.h"
#include "text/corpus.h"

namespace dmc::cli {

struct ModelOptions {
  std::filesystem::path dir;
  int threads = 0;                  // 0: all cores
  std::filesystem::path adapter;    // a file of its own; empty: what the model directory has
  std::string weights, kv = "f32";  // precision in memory; weights: empty as in the checkpoint
  std::string device = "cpu";
  int tensor_parallel_size = 1;  // ranks that share the model
  runtime::PolicyOptions compression;
};

// -m/--model with `default_name` under models/ as default (none if empty), and --threads.
void add_model_options(CLI::App& app, ModelOptions& options, const std::string& default_name);
void add_threads(CLI::App& app, int& threads);  // --threads; 0 stays for all cores
// What --policy may be, a line each, for the end of a command's help.
std::string list_of_policies();

// How inference runs: --adapter, --weights, --kv and, if `with_policy`, which policy decides and
// how far it compresses.
void add_inference_options(CLI::App& app, ModelOptions& options, bool with_policy);

// --device and --tensor-parallel-size.
void add_device_option(CLI::App& app, ModelOptions& options);

inline constexpr const char* kForceCrHelp =
    "merge tokens at random to this compression ratio: shows its speed on any model, not its "
    "quality";

// Numbers above 0, or from 0.
CLI::Validator positive();
CLI::Validator not_negative();

// A flag that takes f32, f16, bf16, int8 or int4; --kv, which takes fp8 instead of int4; and what
// such a name means.
CLI::Option* add_weight_precision(CLI::App& app, const char* flag, std::string& name,
                                  const char* what);
CLI::Option* add_slot_precision(CLI::App& app, std::string& name, const char* what);
std::string slot_precision_problem(const std::string& name);  // a sentence; empty: it is one
DType precision(const std::string& name);

// The model directory models/NAME that comes with the program: under the working directory, or
// beside the build the program lies in, or where they were installed with it.
std::filesystem::path shipped_model(const std::string& name);

// Error(kInvalidArgument) if the model's folder does not exist.
void require_model(const ModelOptions& options);

// The model for inference, on the threads asked for.
std::shared_ptr<const runtime::Model> load_model(const ModelOptions& options);
// The same on the device asked for, and by the ranks asked for. Error(kInvalidArgument) if a device
// is not there, or for ranks that cannot share the model.
runtime::PlacedModel place_model(const ModelOptions& options);
runtime::RunnerOptions runner_options(const ModelOptions& options);

// --eos-token-id, for models that do not name the token that ends a text; and what ends one then.
void add_eos_option(CLI::App& app, std::optional<int64_t>& id);
std::vector<int64_t> end_of_text(const std::optional<int64_t>& id,
                                 const model::ModelConfig& config);

struct TextOptions {
  std::vector<std::filesystem::path> data;  // empty: the built-in held-out files
  bool held_out = false;                    // of `data` only what training does not see
  int64_t length = 0;   // tokens a window; 0: what the model takes, at most 2048
  int64_t windows = 0;  // 0: all of `data`, of the built-in files usual_windows
  int64_t usual_windows = 32;
  std::optional<int64_t> eos_token_id;  // what separates documents; not given: the model's
};

void add_text_options(CLI::App& app, TextOptions& options);

// The text to score: all of `data`, or the built-in held-out files.
text::Corpus scored_corpus(const std::vector<std::filesystem::path>& data, bool held_out = false);

// Tokens of a window for this model; more than its context is Error(kInvalidArgument).
int64_t window_length(const TextOptions& options, const model::ModelConfig& config);

// Windows of the text for this model, with a progress bar where that takes long.
text::EvalWindows text_windows(const TextOptions& options, const runtime::Model& model,
                               const std::filesystem::path& model_dir);

}  // namespace dmc::cli
