#include "cli/torch/train_options.h"

#include <ATen/Context.h>
#include <malloc.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/human.h"
#include "base/join.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "base/table.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/torch/held_out_judge.h"
#include "cli/torch/training_report.h"
#include "dist/team.h"
#include "model/config_file.h"
#include "model/families/family.h"
#include "model/model_path.h"
#include "ops/threads.h"
#include "train/out_dir.h"
#include "train/placement.h"
#include "train/retrofitted_model.h"
#include "train/stage.h"

namespace dmc::cli {
namespace {

// Measuring at the end may take so much of the training time.
constexpr double kShareOfJudge = 0.1;

constexpr InterruptSentences kSentences = {
    "stopping after this step, with a checkpoint; once more ends at once",
    "ended at once; --resume goes on from the last checkpoint"};

// Activations are large and as large in every step: keep freed memory instead of returning it to
// the system and paying the page faults again (up to half of a step's time otherwise).
void keep_freed_memory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

void set_up_machine(const TrainCommand& command) {
  keep_freed_memory();
  ops::set_threads(command.threads);
  if (command.fast_matmul) at::globalContext().setFloat32MatmulPrecision("medium");
}

std::string shell_quoted(const std::string& word) {
  const bool harmless = std::ranges::all_of(word, [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("-_./=,:+@%~").find(c) != std::string_view::npos;
  });
  if (harmless && !word.empty()) return word;
  std::string quoted = "'";
  for (char c : word) quoted += c == '\'' ? "'\\''" : std::string(1, c);
  return quoted + "'";
}

// This process's own, as one could type it again.
std::string command_line() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(in, word, '\0');) words.push_back(word);
  return join(words, " ", shell_quoted);
}

std::string fields(const train::StepRecord& r) {
  char text[160];
  if (r.stage == "dense" || r.stage == "zero-out") {
    std::snprintf(text, sizeof text, "%s  loss %.3f  %.1fk tok/s", r.stage.c_str(), r.loss,
                  r.tokens_per_second / 1e3);
  } else {
    std::snprintf(text, sizeof text, "%s  loss %.3f  CR %.2f (want %.2f)  %.1fk tok/s",
                  r.stage.c_str(), r.loss, r.cr, r.wanted_cr, r.tokens_per_second / 1e3);
  }
  return text;
}

// The command as the process at `place` runs it: with its share of the machine.
TrainCommand share_of(TrainCommand command, const dist::Place& place) {
  if (command.threads == 0 && place.local_size > 1) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    command.threads = std::max(1, cores / place.local_size);
  }
  if (command.options.device == "cuda" && place.size > 1) {
    command.options.device += ":" + std::to_string(place.local_rank);
  }
  return command;
}

}  // namespace

namespace {

std::string model_problem(const std::string& name) {
  try {
    model::require_model_path(model::find_model(name));
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

void add_training_options(CLI::App& app, TrainCommand& command) {
  train::TrainOptions& o = command.options;
  app.add_option_function<std::string>(
         "-m,--model", [&o](const std::string& name) { o.model_dir = model::find_model(name); },
         "model directory or GGUF file to start from")
      ->required()
      ->check(model_problem);
  app.add_option("-o,--out", o.out_dir, "folder for the trained model, log and checkpoint")
      ->required();
  app.add_flag("--overwrite", o.overwrite,
               "take an earlier run's model, log and checkpoint out of --out and begin anew");
  app.add_option(
      "--data", o.data,
      "text: files or folders of .txt, .md, .py and .jsonl (with a \"text\"), also packed "
      "as .gz, .bz2, .zst; 2 % or more is held out (default: the built-in corpus)");
  app.add_option("--batch", command.given.batch,
                 "sequences a step (default: as many as have 8192 tokens)")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option(
         "--accumulate", o.accumulate,
         "parts that a batch is computed in, one after the other: so many times less memory")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--length", command.given.length,
                 "tokens a sequence (default: the model's context, at most 2048)")
      ->check(CLI::Range(2, 1 << 20));
  app.add_option("--lr,--learning-rate", command.given.learning_rate,
                 "peak learning rate (default: one that does a trained model of this size no harm)")
      ->check(positive());
  app.add_option("--final-lr", command.given.final_learning_rate,
                 "learning rate at the end of the decay (default: a tenth of --lr)")
      ->check(not_negative());
  app.add_option(
         "--eval-every", command.evaluate_every,
         "steps between measurements on held-out text; 0: none on the way (default: a tenth "
         "of all steps)")
      ->check(not_negative());
  app.add_option("--warmup", o.warmup_steps, "steps of linear warm-up")
      ->check(not_negative())
      ->capture_default_str();
  app.add_option("--weight-decay", o.weight_decay)->check(not_negative())->capture_default_str();
  app.add_option("--clip", o.clip, "largest norm of the gradient")
      ->check(positive())
      ->capture_default_str();
  add_eos_option(app, o.eos_token_id);
  app.add_option("--seed", o.seed, "of data order, fresh weights and noise")->capture_default_str();
  app.add_option("--weights", o.weights_dtype, "dtype of the written model: f32, f16 or bf16")
      ->check(CLI::IsMember({"f32", "f16", "bf16"}))
      ->capture_default_str();
  app.add_option("--checkpoint-every", o.checkpoint_every, "steps between checkpoints")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_flag("--resume", o.resume, "go on from the checkpoint in --out");
  app.add_option("--device", o.device,
                 "where to train: cpu or cuda, an NVIDIA GPU; --resume may change it")
      ->check(CLI::IsMember({"cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--precision", o.precision,
                 "of matrix products and attention; weights and optimizer always have f32 "
                 "(default: f32 on the CPU, bf16 on CUDA)")
      ->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--processes", command.processes,
                 "processes to train in, each with its share of every batch, on this machine: on "
                 "the CPU, or with a GPU each (default: one, or those that torchrun started); "
                 "--resume may change it")
      ->check(CLI::Range(1, 1024));
  add_threads(app, command.threads);
  app.add_flag("--fast-matmul", command.fast_matmul,
               "let f32 matrix products round their inputs, to bf16 where the CPU has bf16 units, "
               "to TF32 on CUDA");
  app.add_flag("--json", command.json, "print the last step's record as JSON");
}

namespace {

// What a run is chosen by. Tokens are counted in a part of the text.
train::RunFacts facts_of(const TrainCommand& command, const dist::Place& place) {
  const train::TrainOptions& o = command.options;
  const model::ModelConfig config = model::read_model_config(o.model_dir);
  const text::Split split = text::Split::kTrain;
  const text::Corpus corpus(o.data.empty() ? text::builtin_corpus(split) : o.data, split);
  return {.parameters = model::parameter_count(model::decoder_layout(config)),
          .context = config.context(),
          .fresh = o.fresh,
          .adapter_alone = o.adapter_alone(),
          .text_tokens = text::estimated_tokens(corpus, text::Tokenizer(o.model_dir)),
          .hidden = config.hidden_size,
          .ramp_steps = o.ramp_steps(),
          .shares = place.size * o.accumulate};
}

void choose_options(TrainCommand& command, const dist::Place& place) {
  const train::RunFacts facts = facts_of(command, place);
  const train::Defaults chosen = train::choose_defaults(facts, command.given);
  train::TrainOptions& o = command.options;
  o.length = chosen.length;
  o.batch = chosen.batch;
  o.learning_rate = chosen.learning_rate;
  o.final_learning_rate = chosen.final_learning_rate;
  o.retrofit.decision_scale = chosen.decision_scale;
  o.evaluate_every = command.evaluate_every.value_or(std::max<int64_t>(o.total_steps() / 10, 1));
  if (place.rank == 0) say_choice(command, facts, chosen);
}

}  // namespace

train::Outcome train_with_progress(const TrainCommand& command,
                                   std::vector<train::StepRecord>* records, dist::Group& group,
                                   const train::Judge& judge) {
  catch_interrupts(group.is_first() ? &kSentences : nullptr);
  set_up_machine(command);
  std::optional<ProgressBar> bar;
  if (group.is_first()) bar.emplace("training", command.options.total_steps());
  train::TrainOptions options = command.options;
  options.command = command_line();
  const auto on_step = [&](const train::StepRecord& record) {
    records->push_back(record);
    if (bar) bar->update(record.step, fields(record));
    if (bar && record.step == options.total_steps()) bar->finish();
  };
  return train::run_training(options, interrupted, on_step, group, judge);
}

namespace {

// The run on the first process, which measures, too.
TrainingRun train_and_judge(const TrainCommand& command, dist::Group& group) {
  const train::TrainOptions& o = command.options;
  set_up_machine(command);
  TrainingRun run;
  const HeldOutJudge judge(o);
  HeldOutWatch watch(judge, command);
  const Stopwatch stopwatch;
  train::Judge callbacks;
  if (judge.has_text()) {
    callbacks.measure = [&](const std::filesystem::path& model) { return watch.measure(model); };
    callbacks.conclude = [&](const std::filesystem::path& model) {
      run.verdict = judge.conclude(model, std::max(30.0, kShareOfJudge * stopwatch.seconds()));
      return run.verdict;
    };
  }
  run.outcome = train_with_progress(command, &run.records, group, callbacks);
  if (run.outcome == train::Outcome::kFinished && run.verdict.empty() && judge.has_text()) {
    run.last = watch.measure(o.out_dir);
  }
  run.start = watch.start();
  return run;
}

// The first process has the folder, the others look whether it may be had.
std::unique_ptr<train::OutLock> claimed_by_first(const TrainCommand& command,
                                                 const dist::Place& place) {
  if (place.rank == 0) return train::claim_out_dir(command.options);
  train::check_out_dir(command.options);
  return nullptr;
}

}  // namespace

int run_training_command(TrainCommand command,
                         const std::function<void(train::TrainOptions&)>& after_choice) {
  dist::Team team(command.processes, [](const std::string& sentence) {
    std::cerr << "\nwarning: " + sentence + "\n";  // the bar stands in the line
  });
  choose_options(command, team.place());
  if (after_choice) after_choice(command.options);
  const TrainCommand ours = share_of(command, team.place());
  train::require_device(ours.options);
  train::check_run(ours.options, team.place().size);
  const std::unique_ptr<train::OutLock> lock = claimed_by_first(ours, team.place());
  team.meet(train::device_of(ours.options));
  TrainingRun run;
  team.run([&] {
    if (team.group().is_first()) {
      run = train_and_judge(ours, team.group());
    } else {
      run.outcome = train_with_progress(ours, &run.records, team.group());
    }
  });
  if (team.group().is_first()) return report_training(ours, run);
  return run.outcome == train::Outcome::kInterrupted ? kExitInterrupted : 0;
}

}  // namespace dmc::cli
