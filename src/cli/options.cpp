#include "cli/options.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/error.h"
#include "base/join.h"
#include "base/parallel.h"
#include "base/precision.h"
#include "base/progress.h"
#include "model/model_path.h"
#include "model/token_id.h"
#include "policy/policy.h"

namespace dmc::cli {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kUsualLength = 2048;    // tokens a window
constexpr uint64_t kLongText = 16 << 20;  // bytes; less is cut into tokens in a second or two

std::string device_problem(const std::string& name) {
  return name == "cpu" || name == "cuda" ? "" : "\"" + name + "\" is not one of cpu,cuda";
}

std::string names_of(const Precisions& precisions) {
  return join(precisions, ",", [](const auto& entry) { return entry.first; });
}

std::string problem_in(const Precisions& precisions, const std::string& name) {
  if (precisions.contains(name)) return "";
  return "\"" + name + "\" is not one of " + names_of(precisions);
}

CLI::Option* add_one_of(const Precisions& precisions, CLI::App& app, const char* flag,
                        std::string& name, const char* what) {
  return app.add_option(flag, name, what)
      ->type_name("{" + names_of(precisions) + "}")
      ->check([&precisions](const std::string& given) { return problem_in(precisions, given); });
}

// CLI11's own validators print the largest double in full.
CLI::Validator number_that(bool (*holds)(double), const std::string& what) {
  const auto check = [holds, what](const std::string& given) {
    double value = 0.0;
    const bool is_number = CLI::detail::lexical_cast(given, value) && std::isfinite(value);
    return is_number && holds(value) ? "" : "expected " + what + ", found " + given;
  };
  return {check, ""};
}

}  // namespace

CLI::Validator positive() {
  return number_that([](double x) { return x > 0.0; }, "a number above 0");
}

CLI::Validator not_negative() {
  return number_that([](double x) { return x >= 0.0; }, "a number from 0");
}

CLI::Option* add_weight_precision(CLI::App& app, const char* flag, std::string& name,
                                  const char* what) {
  return add_one_of(weight_precisions(), app, flag, name, what);
}

CLI::Option* add_slot_precision(CLI::App& app, std::string& name, const char* what) {
  return add_one_of(slot_precisions(), app, "--kv", name, what);
}

std::string slot_precision_problem(const std::string& name) {
  return problem_in(slot_precisions(), name);
}

DType precision(const std::string& name) {
  const auto of_weights = weight_precisions().find(name);
  return of_weights != weight_precisions().end() ? of_weights->second : slot_precisions().at(name);
}

fs::path shipped_model(const std::string& name) {
  const fs::path here = fs::path("models") / name;
  if (fs::exists(here)) return here;
  std::error_code ignored;
  const fs::path folder = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  // Of build/bin, and of bin and libexec/dmc where the programs are installed.
  for (const char* models : {"../../models", "../share/dmc/models", "../../share/dmc/models"}) {
    if (fs::exists(folder / models / name)) return fs::weakly_canonical(folder / models / name);
  }
  return here;
}

void add_model_options(CLI::App& app, ModelOptions& options, const std::string& default_name) {
  CLI::Option* model = app.add_option_function<std::string>(
      "-m,--model", [&](const std::string& name) { options.dir = model::find_model(name); },
      "model directory, GGUF file, or org/name of what `hf download` has fetched");
  if (default_name.empty()) {
    model->required();
  } else {
    options.dir = shipped_model(default_name);
    model->default_str("models/" + default_name);
  }
  add_threads(app, options.threads);
}

void add_threads(CLI::App& app, int& threads) {
  app.add_option("--threads", threads, "cores to use (default: all)")->check(CLI::Range(1, 1024));
}

namespace {

void add_policy_options(CLI::App& app, runtime::PolicyOptions& options) {
  app.add_option("--policy", options.policy,
                 "what stays in the cache, see below (default: what the model was retrofitted for, "
                 "else dense)");
  app.add_option("--budget", options.budget,
                 "slots a head may keep, for policies that drop what is too much")
      ->check(CLI::Range(2, 1 << 24));
  app.add_option("--cr", options.cr,
                 "compression ratio to hold: by a budget that grows with the text, by moving a "
                 "model's decisions, or by chance, whichever the policy has")
      ->check(CLI::Range(1.0, 64.0));
  app.add_option("--force-cr", options.forced_cr, kForceCrHelp)->check(CLI::Range(1.0, 64.0));
  app.add_option("--decision-bias", options.decision_bias,
                 "moves a model's decisions: above 0 more tokens merge or go, below 0 fewer")
      ->check(CLI::Range(-100.0, 100.0));
  app.add_flag("--mass-term", options.mass_term,
               "a slot that averages n tokens attracts as much attention as n slots");
}

}  // namespace

void add_inference_options(CLI::App& app, ModelOptions& options, bool with_policy) {
  if (with_policy) add_policy_options(app, options.compression);
  app.add_option("--adapter", options.adapter,
                 "adapter.safetensors of `dmc retrofit --decisions adapter`, to compress the model "
                 "it was trained for")
      ->check(CLI::ExistingFile);
  add_weight_precision(app, "--weights", options.weights,
                       "precision of the weights in memory (default: the checkpoint's)");
  add_slot_precision(app, options.kv, "precision of the cache's closed slots")
      ->capture_default_str();
}

std::string list_of_policies() {
  std::string lines = "Policies:\n";
  for (const policy::Policy& policy : policy::policies()) {
    std::string name(policy.name);
    name.resize(std::max<size_t>(name.size() + 1, 10), ' ');
    lines += "  " + name + std::string(policy.summary) + "\n";
  }
  return lines;
}

void add_device_option(CLI::App& app, ModelOptions& options) {
  app.add_option("--device", options.device, "where the model runs; cuda is an NVIDIA GPU")
      ->type_name("{cpu,cuda}")
      ->check(device_problem)
      ->capture_default_str();
  app.add_option("--tensor-parallel-size,--tp", options.tensor_parallel_size,
                 "ranks that share the model's heads and weights, each a thread of the CPU; a "
                 "divisor of its KV heads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
}

void require_model(const ModelOptions& options) { model::require_model_path(options.dir); }

namespace {

std::vector<std::shared_ptr<const runtime::Model>> load_for(const ModelOptions& options,
                                                            int ranks) {
  require_model(options);
  use_thread_team({}, 0);  // LibTorch's threads are training's
  if (options.threads > 0) set_num_threads(options.threads);
  std::optional<DType> weights;
  if (!options.weights.empty()) weights = precision(options.weights);
  return runtime::load_shards(options.dir, ranks, weights, options.adapter);
}

}  // namespace

std::shared_ptr<const runtime::Model> load_model(const ModelOptions& options) {
  return load_for(options, 1).front();
}

// The device is opened first: that it is missing should not be known only after minutes of loading.
runtime::PlacedModel place_model(const ModelOptions& options) {
  require_model(options);
  if (options.tensor_parallel_size > 1) {
    if (options.device == "cpu") {
      return runtime::PlacedModel(load_for(options, options.tensor_parallel_size));
    }
    throw invalid_argument("tensor_parallel_size",
                           "a model is shared by ranks on the CPU alone so far; leave it out, or "
                           "take the device cpu");
  }
  std::shared_ptr<kernels::cuda::Device> device;
  if (options.device == "cuda") device = kernels::cuda::open_cuda_device();
  return {load_model(options), std::move(device)};
}

runtime::RunnerOptions runner_options(const ModelOptions& options) {
  runtime::RunnerOptions result;
  result.compression = options.compression;
  result.kv = precision(options.kv);
  return result;
}

void add_eos_option(CLI::App& app, std::optional<int64_t>& id) {
  app.add_option("--eos-token-id", id,
                 "token that ends a text and stands between texts (default: config.json's)")
      ->check(CLI::Range(0, 1 << 30));
}

std::vector<int64_t> end_of_text(const std::optional<int64_t>& id,
                                 const model::ModelConfig& config) {
  if (!id) return config.eos_token_ids;
  model::require_token(config, "eos_token_id", *id);
  return {*id};
}

void add_text_options(CLI::App& app, TextOptions& options) {
  app.add_option(
      "--data", options.data,
      "text: files or folders of .txt, .md, .py and .jsonl (with a \"text\"), also packed "
      "as .gz, .bz2, .zst (default: the held-out files of the built-in corpus)");
  app.add_flag("--held-out", options.held_out, "of --data only what training on it leaves out");
  CLI::Option* const windows =
      app.add_option("--windows", options.windows, "windows of text to use at most")
          ->check(CLI::Range(1, 1 << 20));
  CLI::Option* const length =
      app.add_option("--length", options.length, "tokens a window")->check(CLI::Range(2, 1 << 20));
  const auto usual = [](CLI::Option* option, int64_t value, const std::string& otherwise) {
    option->default_str(value > 0 ? std::to_string(value) : otherwise);
  };
  usual(windows, options.windows,
        "all of --data, " + std::to_string(options.usual_windows) + " of the built-in files");
  add_eos_option(app, options.eos_token_id);
  usual(length, options.length, "the model's context, at most " + std::to_string(kUsualLength));
}

text::Corpus scored_corpus(const std::vector<fs::path>& data, bool held_out) {
  if (data.empty()) {
    return {text::builtin_corpus(text::Split::kHeldOut), text::Split::kHeldOut};
  }
  return {data, held_out ? text::Split::kHeldOut : text::Split::kAll};
}

int64_t window_length(const TextOptions& options, const model::ModelConfig& config) {
  if (options.length == 0) return std::min(kUsualLength, config.context());
  model::require_context(config, "length", options.length);
  return options.length;
}

text::EvalWindows text_windows(const TextOptions& options, const runtime::Model& model,
                               const fs::path& model_dir) {
  const int64_t length = window_length(options, model.config);
  model::ModelConfig config = model.config;
  config.eos_token_ids = end_of_text(options.eos_token_id, config);
  const text::Tokenizer tokenizer(model_dir, model.config.vocab_size);
  const text::Corpus corpus = scored_corpus(options.data, options.held_out);
  const int64_t windows =
      options.windows == 0 && options.data.empty() ? options.usual_windows : options.windows;
  std::optional<ProgressBar> bar;
  if (windows == 0 && corpus.bytes() > kLongText) {
    bar.emplace("cutting text into tokens", static_cast<int64_t>(corpus.bytes()));
  }
  return text::eval_windows(corpus, tokenizer, model::document_separator(config, model_dir), length,
                            windows, [&](int64_t done) {
                              if (bar) bar->update(done);
                            });
}

}  // namespace dmc::cli
