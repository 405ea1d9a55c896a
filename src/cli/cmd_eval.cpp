// dmc eval: how good a model is with its cache compressed: held-out text, and published tasks.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/human.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/options.h"
#include "cli/task_support.h"
#include "eval/score.h"
#include "eval/tasks/summary.h"
#include "sandbox/sandbox.h"

namespace dmc::cli {
namespace {

using nlohmann::ordered_json;

constexpr const char* kText = "text";  // not in eval's table: its windows need no task file

struct EvalCommand {
  ModelOptions model;
  TextOptions text;
  std::vector<std::string> tasks = {kText};
  std::filesystem::path data_dir = "data";
  int64_t limit = 0;
  std::filesystem::path reference;
  bool allow_code = false;
  eval::CodeOptions code;
  bool json = false;
};

struct Subject {
  const EvalCommand& command;
  const runtime::PlacedModel& placed;
  runtime::Runner& runner;
  const text::Tokenizer& tokenizer;
};

ordered_json header(const Subject& subject) {
  return {{"model", subject.command.model.dir.string()}, {"policy", subject.runner.policy().name}};
}

std::string heading(const Subject& subject) {
  return subject.command.model.dir.string() + ", policy " +
         std::string(subject.runner.policy().name);
}

text::EvalWindows windows_of(const Subject& subject) {
  return text_windows(subject.command.text, subject.placed.model(), subject.command.model.dir);
}

eval::Score score_text(const Subject& subject, const text::EvalWindows& windows) {
  ProgressBar bar("text", windows.total_tokens());
  return eval::score(subject.runner, windows, [&](int64_t done) { bar.update(done); });
}

// "2 files, 1.2 MiB in 412332 tokens, all of it".
std::string text_used(const eval::Score& score, const text::EvalWindows& windows) {
  return std::to_string(windows.files) + (windows.files == 1 ? " file, " : " files, ") +
         human_bytes(static_cast<double>(score.bytes)) + " in " + std::to_string(score.tokens) +
         " tokens, " + (windows.whole ? "all of it" : "the beginning (--windows)");
}

void print_text_score(const eval::Score& score, const text::EvalWindows& windows) {
  std::cout << "  text                 " << text_used(score, windows) << "\n"
            << "  bits per byte        " << fixed(score.bits_per_byte, 4) << "\n"
            << "  loss                 " << fixed(score.loss, 4) << " nats a token, perplexity "
            << fixed(score.perplexity, 2) << "\n"
            << "  next-token accuracy  " << fixed(100 * score.next_token_accuracy, 2) << " %\n"
            << "  compression ratio    " << fixed(score.compression_ratio, 2) << "  ("
            << score.tokens << " tokens in " << fixed(score.slots, 0) << " slots a head)\n";
}

int evaluate_text(const Subject& subject) {
  const text::EvalWindows windows = windows_of(subject);
  const eval::Score score = score_text(subject, windows);
  const int64_t length = window_length(subject.command.text, subject.placed.model().config);
  if (subject.command.json) {
    ordered_json json = header(subject);
    json.update({{"files", windows.files},
                 {"bytes", score.bytes},
                 {"whole", windows.whole},
                 {"windows", windows.tokens.size()},
                 {"length", length},
                 {"loss", score.loss},
                 {"perplexity", score.perplexity},
                 {"bits_per_byte", score.bits_per_byte},
                 {"next_token_accuracy", score.next_token_accuracy},
                 {"tokens", score.tokens},
                 {"slots", score.slots},
                 {"compression_ratio", score.compression_ratio}});
    std::cout << json.dump() << "\n";
    return 0;
  }
  std::cout << heading(subject) << ", " << windows.tokens.size() << " windows of " << length
            << " tokens\n";
  print_text_score(score, windows);
  return 0;
}

// Tasks cut windows into parts, for which a short last one may be too short.
text::EvalWindows full_windows(text::EvalWindows windows) {
  if (windows.tokens.size() > 1 && windows.tokens.back().size() < windows.tokens[0].size()) {
    windows.tokens.pop_back();
    windows.bytes.pop_back();
    windows.whole = false;
  }
  return windows;
}

struct Step {
  const eval::Task* task;  // null: held-out text
  std::filesystem::path file;
};

// The tasks and their files. Whatever is missing is said before the first task runs: it should not
// cost an hour.
std::vector<Step> make_plan(const EvalCommand& command) {
  std::vector<Step> plan;
  for (const std::string& name : command.tasks) {
    if (name == kText) {
      plan.push_back({nullptr, {}});
      continue;
    }
    const eval::Task& task = eval::find_task(name);
    if (task.runs_code && !command.allow_code) {
      throw invalid_argument("task " + name +
                             " runs code that the model writes; --allow-code lets it " +
                             "do so in a sandbox");
    }
    if (task.runs_code)
      sandbox::PythonSandbox(sandbox::SandboxLimits{});  // throws if this machine cannot isolate
    plan.push_back({&task, task_file(task, command.text, command.data_dir)});
  }
  return plan;
}

// What the model is compared with: itself without compression, or another one.
std::unique_ptr<runtime::Runner> make_reference(const Subject& subject) {
  const runtime::RunnerOptions dense{.compression = {.policy = "dense"}};
  if (subject.command.reference.empty()) return subject.placed.make_runner(dense);
  ModelOptions options = subject.command.model;
  options.dir = subject.command.reference;
  options.adapter.clear();
  return runtime::PlacedModel(load_model(options), subject.placed.device()).make_runner(dense);
}

eval::TaskScore run_task(const eval::Task& task, eval::TaskInput input) {
  std::optional<ProgressBar> bar;
  input.progress = [&](int64_t done, int64_t total) {
    if (!bar) bar.emplace(std::string(task.name), total);
    bar->update(done);
  };
  return task.run(input);
}

std::vector<eval::NamedScore> run_tasks(const Subject& subject) {
  const EvalCommand& command = subject.command;
  const std::vector<Step> plan = make_plan(command);
  const auto needs = [&](bool eval::Task::*what) {
    return std::ranges::any_of(
        plan, [&](const Step& step) { return step.task != nullptr && step.task->*what; });
  };
  std::optional<text::EvalWindows> text;
  if (needs(&eval::Task::on_text)) text = full_windows(windows_of(subject));
  std::unique_ptr<runtime::Runner> reference;
  if (needs(&eval::Task::compares)) reference = make_reference(subject);

  std::vector<eval::NamedScore> scores;
  for (const auto& [task, file] : plan) {
    if (task == nullptr) {
      scores.push_back({kText, as_task(score_text(subject, windows_of(subject)))});
      continue;
    }
    scores.push_back({std::string(task->name),
                      run_task(*task, {.runner = subject.runner,
                                       .tokenizer = subject.tokenizer,
                                       .end_of_text = subject.placed.model().config.eos_token_ids,
                                       .file = file,
                                       .text = text ? &*text : nullptr,
                                       .reference = reference.get(),
                                       .limit = command.limit,
                                       .code = command.code})});
  }
  return scores;
}

int print_task_scores(const Subject& subject) {
  const std::vector<eval::NamedScore> scores = run_tasks(subject);
  if (subject.command.json) {
    ordered_json json = header(subject);
    json.update(eval::to_json(scores));
    std::cout << json.dump() << "\n";
  } else {
    std::cout << heading(subject) << "\n";
    eval::print_scores(std::cout, scores);
  }
  return 0;
}

int run(const EvalCommand& command) {
  const runtime::PlacedModel model = place_model(command.model);
  const std::unique_ptr<runtime::Runner> runner = model.make_runner(runner_options(command.model));
  const text::Tokenizer tokenizer(command.model.dir, runner->vocab_size());
  const Subject subject{command, model, *runner, tokenizer};
  const bool only_text = command.tasks == std::vector<std::string>{kText};
  return only_text ? evaluate_text(subject) : print_task_scores(subject);
}

std::string list_of_tasks() {
  std::string lines =
      "Tasks:\n  text            loss, perplexity and bits per byte of a text (the default)\n";
  for (const eval::Task& task : eval::tasks()) {
    std::string name(task.name);
    name.resize(std::max<size_t>(name.size() + 1, 16), ' ');
    lines += "  " + name + std::string(task.summary) + "\n";
  }
  return lines;
}

}  // namespace

std::function<int()> setup_eval(CLI::App& app) {
  auto command = std::make_shared<EvalCommand>();
  add_model_options(app, command->model, "builtin-4x");
  add_inference_options(app, command->model, /*with_policy=*/true);
  add_device_option(app, command->model);
  app.add_option("--tasks", command->tasks, "what to score, separated by commas")
      ->delimiter(',')
      ->default_str("text");
  app.add_option("--data-dir", command->data_dir, "folder with the tasks' files")
      ->capture_default_str();
  app.add_option("--limit", command->limit, "items of a task at most (default: all)")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--reference", command->reference,
                 "model that agreement compares with (default: the same one uncompressed)");
  app.add_flag("--allow-code", command->allow_code,
               "let tasks run the code that the model writes, in a sandbox");
  app.add_option("--samples", command->code.samples, "answers to each coding problem, for pass@k")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--temperature", command->code.temperature, "of more than one sample")
      ->capture_default_str();
  app.add_option("--seed", command->code.seed, "of the samples")->capture_default_str();
  add_text_options(app, command->text);
  app.add_flag("--json", command->json, "print one JSON object instead");
  app.footer(list_of_policies() + list_of_tasks() +
             "Examples:\n"
             "  dmc eval -m models/builtin-4x --json\n"
             "  dmc eval -m my-model --data ~/books --length 1024\n"
             "  dmc eval -m my-model --tasks piqa,mmlu --data-dir ~/data --limit 100");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
