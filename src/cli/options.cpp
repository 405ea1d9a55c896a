#include "cli/options.h"

#include <map>
#include <optional>

#include "base/error.h"
#include "base/parallel.h"
#include "policy/policy.h"

namespace dmc::cli {
namespace fs = std::filesystem;
namespace {

const std::map<std::string, DType> kPrecisions = {
    {"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}, {"int8", DType::kI8}};

// CLI11 has checked the name.
DType precision(const std::string& name) { return kPrecisions.at(name); }

std::string list_of_policies() {
  std::string list;
  for (const policy::Policy& policy : policy::policies()) {
    list +=
        (list.empty() ? "" : "; ") + std::string(policy.name) + ": " + std::string(policy.summary);
  }
  return list;
}

CLI::IsMember precision_names() { return CLI::IsMember({"f32", "f16", "bf16", "int8"}); }

}  // namespace

fs::path shipped_model(const std::string& name) {
  const fs::path here = fs::path("models") / name;
  if (fs::exists(here)) return here;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path beside = program.parent_path() / "../../models" / name;  // build/bin/dmc
  return fs::exists(beside) ? fs::weakly_canonical(beside) : here;
}

void add_model_options(CLI::App& app, ModelOptions& options, const std::string& default_name) {
  CLI::Option* model = app.add_option("-m,--model", options.dir, "model directory");
  if (default_name.empty()) {
    model->required();
  } else {
    options.dir = shipped_model(default_name);
    model->default_str("models/" + default_name);
  }
  app.add_option("--threads", options.threads, "cores to use (default: all)")
      ->check(CLI::Range(1, 1024));
}

void add_inference_options(CLI::App& app, ModelOptions& options, bool with_policy) {
  if (with_policy) {
    app.add_option("--policy", options.policy,
                   list_of_policies() + " (default: dmc if the model was retrofitted, else dense)");
  }
  app.add_option("--weights", options.weights,
                 "precision of the weights in memory (default: the checkpoint's)")
      ->check(precision_names());
  app.add_option("--kv", options.kv, "precision of the cache's closed slots")
      ->check(precision_names())
      ->capture_default_str();
  app.add_option("--budget", options.budget, "slots a head may keep, for policies that drop tokens")
      ->check(CLI::Range(2, 1 << 24));
  app.add_option("--force-cr", options.forced_cr,
                 "merge tokens at random to this compression ratio: shows its speed on any model, "
                 "not its quality")
      ->check(CLI::Range(1.0, 64.0));
}

void require_model(const ModelOptions& options) {
  if (!fs::is_directory(options.dir)) {
    throw usage_error("--model: there is no folder " + options.dir.string());
  }
}

std::shared_ptr<const runtime::Model> load_model(const ModelOptions& options) {
  require_model(options);
  use_thread_team({}, 0);  // LibTorch's threads are training's
  if (options.threads > 0) set_num_threads(options.threads);
  std::optional<DType> weights;
  if (!options.weights.empty()) weights = precision(options.weights);
  return runtime::load_model(options.dir, weights);
}

runtime::RunnerOptions runner_options(const ModelOptions& options) {
  runtime::RunnerOptions result;
  result.policy = options.policy;
  result.kv = precision(options.kv);
  result.forced_cr = options.forced_cr;
  result.budget = options.budget;
  return result;
}

int32_t separator(const runtime::Model& model, const fs::path& dir) {
  if (model.config.eos_token_ids.empty()) {
    throw data_error((dir / "config.json").string() +
                     ": eos_token_id is needed to separate documents, found none");
  }
  return static_cast<int32_t>(model.config.eos_token_ids.front());
}

void add_text_options(CLI::App& app, TextOptions& options) {
  app.add_option("--data", options.data,
                 "text files or folders (default: the held-out files of the built-in corpus)");
  app.add_option("--windows", options.windows, "windows of text to use")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--length", options.length, "tokens a window")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
}

io::EvalWindows held_out_windows(const TextOptions& options, const runtime::Model& model,
                                 const fs::path& model_dir) {
  if (options.length > model.config.context()) {
    throw usage_error("--length: " + std::to_string(options.length) +
                      " tokens are more than the model's context of " +
                      std::to_string(model.config.context()));
  }
  const io::Tokenizer tokenizer(model_dir);
  const io::Corpus corpus(
      options.data.empty() ? io::builtin_corpus(io::Split::kHeldOut) : options.data,
      io::Split::kHeldOut);
  return io::eval_windows(corpus, tokenizer, separator(model, model_dir), options.length,
                          options.windows);
}

}  // namespace dmc::cli
