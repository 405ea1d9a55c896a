#include "cli/torch/training_report.h"

#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/human.h"
#include "base/table.h"
#include "cli/interrupt.h"
#include "train/retrofitted_model.h"

namespace dmc::cli {
namespace {

constexpr double kWorse = 1.002;  // times the loss at the start; less is chance

std::string price_of(const train::HeldOut& now) {
  if (now.cr < 1.02) return "; a lower --lr does less harm";
  return "; a part of it is the price of a ratio of " + fixed(now.cr, 2);
}

void warn(const std::string& sentence) { std::cerr << "warning: " << sentence << "\n"; }

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

void print_verdict(const train::Verdict& verdict) {
  Table table({{"on held-out text", Align::kLeft}, {"CR"}, {"loss"}, {"perplexity"}});
  for (const train::Verdict::Line& line : verdict.lines) {
    table.add_row(
        {line.what, fixed(line.cr, 2), fixed(line.loss, 4), fixed(std::exp(line.loss), 2)});
  }
  table.print(std::cerr);
  std::cerr << "(" << verdict.text << ")\n" << verdict.advice << "\n";
}

void print_start_and_end(const TrainingRun& run) {
  if (!run.last) return;
  std::cerr << "loss on held-out text: ";
  if (run.start) std::cerr << fixed(run.start->loss, 4) << " before, ";
  std::cerr << fixed(run.last->loss, 4) << " after\n";
}

void warn_of_missed_ratio(const TrainCommand& command, const TrainingRun& run) {
  const double wanted = command.options.retrofit.target_cr;
  if (run.verdict.empty() || run.verdict.result().cr >= 0.95 * wanted) return;
  warn("the ratio of " + fixed(wanted, 2) + " was missed, it is " +
       fixed(run.verdict.result().cr, 2) +
       " on held-out text; give more --steps or a larger --compression-weight");
}

nlohmann::ordered_json to_json(const TrainCommand& command, const TrainingRun& run) {
  const train::StepRecord& last = run.records.back();
  nlohmann::ordered_json json = {{"out", command.options.out_dir.string()},
                                 {"step", last.step},
                                 {"tokens", last.tokens},
                                 {"loss", last.loss},
                                 {"compression_ratio", last.cr}};
  if (run.start) json["held_out_loss_before"] = run.start->loss;
  if (run.last) json["held_out_loss"] = run.last->loss;
  if (run.verdict.empty()) return json;
  json["held_out_loss"] = run.verdict.result().loss;
  json["compression_ratio"] = run.verdict.result().cr;
  for (const train::Verdict::Line& line : run.verdict.lines) {
    json["held_out"].push_back(
        {{"what", line.what}, {"compression_ratio", line.cr}, {"loss", line.loss}});
  }
  json["advice"] = run.verdict.advice;
  return json;
}

}  // namespace

void say_choice(const TrainCommand& command, const train::RunFacts& facts,
                const train::Defaults& chosen) {
  const int64_t steps = command.options.total_steps();
  const double tokens = static_cast<double>(steps * chosen.batch * chosen.length);
  std::cerr << command.options.model_dir.string() << ": " << human_count(facts.parameters)
            << " parameters; text to train on: about " << human_count(facts.text_tokens)
            << " tokens\n";
  for (const std::string& reason : chosen.reasons) std::cerr << "  " << reason << "\n";
  std::cerr << "  " << steps << " steps: " << human_count(tokens) << " tokens, "
            << fixed(train::epochs(facts, steps, chosen), 2) << " epochs\n";
  const std::string warning = train::data_warning(facts, steps, chosen);
  if (!warning.empty()) warn(warning);
}

HeldOutWatch::HeldOutWatch(const HeldOutJudge& judge, const TrainCommand& command) : judge_(judge) {
  if (!judge.has_text()) {
    warn("there is no held-out text, so nothing says whether training helps or harms");
  } else if (!command.options.fresh) {
    start_ = judge.measure(command.options.model_dir);
    std::cerr << "  held out: " << judge.text() << ", loss " << fixed(start_->loss, 4)
              << " before training\n";
  }
}

train::HeldOut HeldOutWatch::measure(const std::filesystem::path& model) {
  const train::HeldOut now = judge_.measure(model);
  if (start_ && !warned_ && now.loss > start_->loss * kWorse) {
    warned_ = true;
    std::cerr << "\n";  // the bar stands in the line
    warn("the loss on held-out text is " + fixed(now.loss, 4) + ", and was " +
         fixed(start_->loss, 4) + " before training" + price_of(now));
  }
  return now;
}

int report_training(const TrainCommand& command, const TrainingRun& run) {
  const std::string out = command.options.out_dir.string();
  if (run.outcome == train::Outcome::kInterrupted) {
    std::cerr << "stopped; the checkpoint is in " << out
              << "; the same command with --resume goes on from it\n";
    return kExitInterrupted;
  }
  if (!run.verdict.empty()) print_verdict(run.verdict);
  print_start_and_end(run);
  warn_of_missed_ratio(command, run);
  if (command.json && !run.records.empty()) {
    std::cout << to_json(command, run).dump() << "\n";
  } else {
    std::cerr << "the model is in " << out << "\n";
    for (const double cr : command.options.retrofit.save_at_cr) say_model_of(cr, command);
  }
  return 0;
}

}  // namespace dmc::cli
