#include "cli/torch/train_options.h"

#include <ATen/Context.h>
#include <malloc.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/human.h"
#include "base/join.h"
#include "base/progress.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "dist/team.h"
#include "ops/threads.h"
#include "train/placement.h"
#include "train/retrofitted_model.h"
#include "train/stage.h"

namespace dmc::cli {
namespace {

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

// Whether the run passed a ratio of --save-at-cr, and where the model is.
void say_model_of(double cr, const TrainCommand& command) {
  const std::filesystem::path dir = command.options.out_dir / train::ratio_folder(cr);
  if (std::filesystem::exists(dir)) {
    std::cerr << "the model at a ratio of " << fixed(cr, 2) << " is in " << dir.string() << "\n";
  } else {
    std::cerr << "a ratio of " << fixed(cr, 2) << " was not reached; give more --steps or a larger "
              << "--compression-weight\n";
  }
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

// What the first process says at the end of a run.
int report(const TrainCommand& command, train::Outcome outcome,
           const std::vector<train::StepRecord>& records) {
  const std::string out = command.options.out_dir.string();
  if (outcome == train::Outcome::kInterrupted) {
    std::cerr << "stopped; the checkpoint is in " << out
              << "; the same command with --resume goes on from it\n";
    return kExitInterrupted;
  }
  if (command.json && !records.empty()) {
    const train::StepRecord& last = records.back();
    std::cout << nlohmann::ordered_json{{"out", out},
                                        {"step", last.step},
                                        {"tokens", last.tokens},
                                        {"loss", last.loss},
                                        {"compression_ratio", last.cr}}
                     .dump()
              << "\n";
  } else {
    std::cerr << "the model is in " << out << "\n";
    for (const double cr : command.options.retrofit.save_at_cr) say_model_of(cr, command);
  }
  return 0;
}

}  // namespace

void add_training_options(CLI::App& app, TrainCommand& command) {
  train::TrainOptions& o = command.options;
  app.add_option("-m,--model", o.model_dir, "model directory to start from")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("-o,--out", o.out_dir, "folder for the trained model, log and checkpoint")
      ->required();
  app.add_option("--data", o.data, "text files or folders (default: the built-in corpus)");
  app.add_option("--batch", o.batch, "sequences a step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--length", o.length, "tokens a sequence")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  app.add_option("--lr", o.learning_rate, "peak learning rate")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--final-lr", o.final_learning_rate, "learning rate at the end of the decay")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--warmup", o.warmup_steps, "steps of linear warm-up")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--weight-decay", o.weight_decay)
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--clip", o.clip, "largest norm of the gradient")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
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

train::Outcome train_with_progress(const TrainCommand& command,
                                   std::vector<train::StepRecord>* records, dist::Group& group) {
  catch_interrupts();
  set_up_machine(command);
  std::optional<ProgressBar> bar;
  if (group.is_first()) bar.emplace("training", command.options.total_steps());
  train::TrainOptions options = command.options;
  options.command = command_line();
  const auto on_step = [&](const train::StepRecord& record) {
    records->push_back(record);
    if (bar) bar->update(record.step, fields(record));
  };
  return train::run_training(options, interrupted, on_step, group);
}

int run_training_command(const TrainCommand& command) {
  dist::Team team(command.processes);
  const TrainCommand ours = share_of(command, team.place());
  train::require_device(ours.options);
  team.meet(train::device_of(ours.options));
  std::vector<train::StepRecord> records;
  train::Outcome outcome = train::Outcome::kInterrupted;
  team.run([&] { outcome = train_with_progress(ours, &records, team.group()); });
  if (team.group().is_first()) return report(command, outcome, records);
  return outcome == train::Outcome::kInterrupted ? kExitInterrupted : 0;
}

}  // namespace dmc::cli
