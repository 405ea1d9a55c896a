#include "train/trainer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/stopwatch.h"
#include "model/adapter.h"
#include "model/config_file.h"
#include "nn/adapter.h"
#include "nn/weights.h"
#include "policy/schedule.h"
#include "text/corpus.h"
#include "text/model_text.h"
#include "train/batches.h"
#include "train/checkpoint.h"
#include "train/loss.h"
#include "train/method.h"
#include "train/optimizer.h"
#include "train/out_dir.h"
#include "train/placement.h"
#include "train/retrofitted_model.h"
#include "train/stage.h"
#include "train/teacher.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

bool is_retrofit(const TrainOptions& options) {
  return options.stages.back().stage->name != "dense";
}

// A retrofit starts decisions over: with an adapter that decides nothing yet, or with channels that
// the zero-out stage clears.
nn::Decoder undecided_model(nn::Decoder model, const RetrofitOptions& retrofit) {
  if (model.config().has_adapter()) model = nn::without_adapter(model);
  if (retrofit.decisions == "neuron") return model;
  return nn::with_adapter(model, {.method = retrofit.method});
}

nn::Decoder placed(nn::Decoder model, const TrainOptions& options) {
  model.place(placement_of(options));
  return model;
}

nn::Decoder initial_model(const TrainOptions& options) {
  model::ModelConfig config = model::read_model_config(options.model_dir);
  if (const char* const key = config.dmc ? config.dmc->only_runs() : nullptr) {
    throw data_error((options.model_dir / "config.json").string() + ": it has " + key +
                     ", which is implemented for running a model but not for training one");
  }
  if (options.fresh) {
    config.dmc.reset();
    return placed(nn::Decoder::create(config, options.seed), options);
  }
  nn::Decoder model = nn::Decoder::load(options.model_dir);
  if (is_retrofit(options)) model = undecided_model(std::move(model), options.retrofit);
  return placed(std::move(model), options);
}

// With gradients for the parameters that train: the base model's, the adapter's or both.
nn::Decoder model_to_train(const TrainOptions& options) {
  nn::Decoder model = initial_model(options);
  const std::set<std::string> adapter = model::adapter_tensors(model.layout());
  const bool trains_adapter = options.retrofit.decisions == "adapter";
  for (const auto& [name, parameter] : model.parameters()) {
    parameter.set_requires_grad(adapter.contains(name) ? trains_adapter : !options.adapter_alone());
  }
  return model;
}

// The numbers, each [] or undefined (which reads as 0), as means over the ranks: all at once,
// because the host waits for the device each time it reads, and for the others.
std::vector<double> read_back(const std::vector<at::Tensor>& numbers, at::Device device,
                              dist::Group& group) {
  std::vector<at::Tensor> all;
  for (const at::Tensor& x : numbers) {
    all.push_back(x.defined() ? x.detach().to(at::kDouble)
                              : at::zeros({}, at::TensorOptions(device).dtype(at::kDouble)));
  }
  const at::Tensor means = at::stack(all);
  group.sum(means);
  group.settle();
  const at::Tensor here = (means / group.size()).cpu();
  return {here.const_data_ptr<double>(), here.const_data_ptr<double>() + here.numel()};
}

class Trainer {
 public:
  Trainer(const TrainOptions& options, const std::function<bool()>& interrupted, dist::Group& group,
          const Judge& judge)
      : options_(options),
        interrupted_(interrupted),
        group_(group),
        judge_(judge),
        model_(model_to_train(options)),
        optimizer_(model_.parameters(), options, group),
        tokenizer_(options.model_dir, model_.config().vocab_size),
        corpus_(options.data.empty() ? text::builtin_corpus(text::Split::kTrain) : options.data,
                text::Split::kTrain),
        batches_(corpus_, tokenizer_, options.separator(model_.config()), options, group) {
    progress_.compression_weight = options.retrofit.compression_weight;
    progress_.decision_offset = options.retrofit.offset;
    if (!options.retrofit.distill.empty()) {
      // A base that does not train is its own teacher.
      teacher_ = std::make_unique<Teacher>(options.adapter_alone()
                                               ? placed(nn::without_adapter(model_), options)
                                               : initial_model(options),
                                           options);
    }
    if (!options.resume) return;
    progress_ = load_checkpoint(options_, model_, optimizer_);
    batches_.seek(progress_.feeds);
  }

  Outcome run(const std::function<void(const StepRecord&)>& on_step) {
    std::optional<StepLog> log;
    if (group_.is_first()) log.emplace(options_.out_dir / "train.jsonl", progress_.step);
    int64_t stage_start = 0;
    for (const StageRun& run : options_.stages) {
      const int64_t stage_end = stage_start + run.steps;
      const auto attention = run.stage->attention(model_.config(), options_);
      while (progress_.step < stage_end) {
        StepRecord record = step(run, *attention, progress_.step - stage_start);
        // Done with the stage's last step, so that a checkpoint never falls between the two.
        if (progress_.step == stage_end && run.stage->finish) run.stage->finish(model_, options_);
        save_passed_ratios(*attention, &record);
        evaluate(run, &record);
        if (log) log->write(record);
        last_ = record;
        if (on_step) on_step(record);
        const bool due = progress_.step % options_.checkpoint_every == 0;
        if (log && (stop_ || due)) log->sync();  // before a checkpoint says that they are done
        if (stop_ || due) save();
        if (stop_) return Outcome::kInterrupted;
      }
      stage_start = stage_end;
      cr_by_head_ = attention->cr_by_head();
    }
    if (log) log->sync();
    write_model();
    return Outcome::kFinished;
  }

 private:
  StepRecord step(const StageRun& run, TrainAttention& attention, int64_t step_in_stage) {
    const Stopwatch watch;
    StepInfo info{.step = step_in_stage,
                  .steps = run.steps,
                  .global_step = progress_.step,
                  .seed = options_.seed,
                  .compression_weight = progress_.compression_weight,
                  .decision_offset = progress_.decision_offset,
                  .group = &group_,
                  .parts = options_.accumulate};
    const at::Tensor batch = nn::copied_to(device_of(options_), batches_.next());
    const StepMeans means = backward_in_parts(batch, info, attention);
    StepRecord record;
    record.stage = run.stage->name;
    record.learning_rate = policy::learning_rate(
        progress_.step, options_.total_steps(), options_.warmup_steps, options_.decay_steps,
        options_.learning_rate, options_.final_learning_rate);
    const std::vector<double> numbers =
        read_back({means.language_model, means.divergence, means.extra,
                   optimizer_.step(record.learning_rate), means.decided, means.served,
                   at::full({}, interrupted_() ? 1.0 : 0.0, batch.options().dtype(at::kDouble))},
                  batch.device(), group_);
    record.loss = numbers[0];
    record.divergence = numbers[1];
    record.extra_loss = numbers[2];
    record.gradient_norm = numbers[3];
    record.cr = 1.0 / (1.0 - numbers[5]);
    stop_ = numbers[6] > 0.0;
    if (!std::isfinite(record.loss + record.divergence)) {
      throw internal_error("the loss is not finite at step " + std::to_string(progress_.step + 1) +
                           "; resume from the last checkpoint with a lower --lr");
    }
    record.wanted_cr = attention.wanted_cr();
    adapt(attention, 1.0 / (1.0 - numbers[4]), &record);

    progress_.step += 1;
    progress_.tokens += options_.batch * options_.length;
    record.step = progress_.step;
    record.tokens = progress_.tokens;
    record.tokens_per_second =
        static_cast<double>(options_.batch * options_.length) / watch.seconds();
    return record;
  }

  // What the next step's compression loss weighs, and in the end what decides, by what came out of
  // this one.
  void adapt(const TrainAttention& attention, double decided_cr, StepRecord* record) {
    const RetrofitOptions& retrofit = options_.retrofit;
    record->compression_weight = progress_.compression_weight;
    record->decision_offset = progress_.decision_offset;
    progress_.compression_weight = policy::adapted_weight(
        progress_.compression_weight, retrofit.weight_gain, record->wanted_cr, decided_cr);
    if (!attention.adapts_offset()) return;
    progress_.decision_offset = policy::adapted_offset(
        progress_.decision_offset, retrofit.offset_gain, record->wanted_cr, record->cr);
  }

  // Of a step, each [] or undefined: none.
  struct StepMeans {
    at::Tensor language_model, divergence, extra, decided, served;

    void add(const at::Tensor& x, at::Tensor StepMeans::*sum, int64_t parts) {
      if (!x.defined()) return;
      const at::Tensor share = x.detach() / static_cast<double>(parts);
      this->*sum = (this->*sum).defined() ? this->*sum + share : share;
    }
  };

  // The gradient of a batch is the mean of its parts' gradients.
  StepMeans backward_in_parts(const at::Tensor& batch, StepInfo info, TrainAttention& attention) {
    StepMeans means;
    const int64_t rows = batch.size(0) / info.parts;
    for (info.part = 0; info.part < info.parts; ++info.part) {
      attention.begin_step(info);
      const Losses losses = backward(batch.narrow(0, info.part * rows, rows), attention);
      means.add(losses.token.language_model, &StepMeans::language_model, info.parts);
      means.add(losses.token.divergence, &StepMeans::divergence, info.parts);
      means.add(losses.extra, &StepMeans::extra, info.parts);
      means.add(attention.decided_fraction(), &StepMeans::decided, info.parts);
      means.add(attention.served_fraction(), &StepMeans::served, info.parts);
    }
    if (info.parts > 1) {
      for (const auto& [name, parameter] : model_.parameters()) {
        if (parameter.grad().defined()) parameter.mutable_grad() /= info.parts;
      }
    }
    return means;
  }

  struct Losses {
    TokenLoss token;
    at::Tensor extra;  // of the stage; undefined: none
  };

  // Gradients of all that a part of a step minimizes, added to those that are there, and how much
  // that is.
  Losses backward(const at::Tensor& batch, TrainAttention& attention) {
    const at::Tensor inputs = batch.narrow(1, 0, options_.length);
    const at::Tensor targets = batch.narrow(1, 1, options_.length);
    const Distillation distillation = distillation_of(inputs);
    const at::Tensor hidden_ND = model_.hidden(inputs, attention).flatten(0, 1);
    const Losses losses = {head_backward(model_, hidden_ND, targets.reshape({-1}), distillation),
                           attention.extra_loss()};
    std::vector<at::Tensor> roots = {hidden_ND}, gradients = {losses.token.hidden_grad_ND};
    if (losses.extra.defined()) {
      roots.push_back(losses.extra);
      gradients.push_back(at::ones_like(losses.extra));
    }
    torch::autograd::backward(roots, gradients);
    return losses;
  }

  Distillation distillation_of(const at::Tensor& inputs_BT) const {
    if (teacher_ == nullptr) return {};
    return {find_divergence(options_.retrofit.distill), options_.retrofit.distill_weight,
            &teacher_->model(), teacher_->hidden(inputs_BT).flatten(0, 1)};
  }

  // A model for each ratio of --save-at-cr that is both asked for and reached by now. What is asked
  // for alone may lag, and what is reached alone may be a lucky batch.
  void save_passed_ratios(const TrainAttention& attention, StepRecord* record) {
    const std::vector<double>& ratios = options_.retrofit.save_at_cr;
    const double passed = std::min(record->cr, record->wanted_cr);
    for (size_t next = progress_.ratios_saved; next < ratios.size() && ratios[next] <= passed;
         ++next) {
      record->saved = ratio_folder(ratios[next]);
      progress_.ratios_saved = next + 1;
      if (!group_.is_first()) continue;
      write_retrofitted(model_, options_,
                        {record->stage,
                         ratios[next],
                         record->tokens,
                         progress_.decision_offset,
                         *record,
                         attention.cr_by_head(),
                         {}},
                        options_.out_dir / record->saved);
    }
  }

  void evaluate(const StageRun& run, StepRecord* record) {
    if (options_.evaluate_every == 0 || progress_.step % options_.evaluate_every != 0) return;
    if (!judge_.measure || !group_.is_first() || run.stage->finish != nullptr) return;
    const fs::path folder = options_.out_dir / "being-measured";
    write_served(std::string(run.stage->name), *record, folder);
    record->held_out = judge_.measure(folder);
    fs::remove_all(folder);
  }

  // The model of this moment as it is served.
  void write_served(const std::string& stage, const StepRecord& record, const fs::path& folder) {
    if (is_retrofit(options_)) {
      write_retrofitted(model_, options_,
                        {stage,
                         options_.retrofit.target_cr,
                         progress_.tokens,
                         progress_.decision_offset,
                         record,
                         {},
                         {}},
                        folder);
      return;
    }
    fs::create_directories(folder);
    model_.save(folder, {nn::float_type(options_.weights_dtype)});
    text::copy_model_texts(options_.model_dir, folder);
  }

  void save() {
    progress_.feeds = batches_.positions();
    save_checkpoint(options_, model_, optimizer_, progress_, group_);
  }

  void write_model() {
    save();  // should writing the model fail, nothing is lost
    if (!group_.is_first()) return;
    if (!is_retrofit(options_)) {
      write_served("", {}, options_.out_dir);
      return;
    }
    RetrofitState state{std::string(options_.stages.back().stage->name),
                        options_.retrofit.target_cr,
                        progress_.tokens,
                        progress_.decision_offset,
                        last_,
                        cr_by_head_,
                        {}};
    write_retrofitted(model_, options_, state, options_.out_dir);
    if (!judge_.conclude) return;
    state.verdict = judge_.conclude(options_.out_dir);
    write_card(model_, options_, state, options_.out_dir);
  }

  const TrainOptions& options_;
  const std::function<bool()>& interrupted_;
  dist::Group& group_;
  const Judge& judge_;
  nn::Decoder model_;
  AdamW optimizer_;
  std::unique_ptr<const Teacher> teacher_;  // null: no distillation
  text::Tokenizer tokenizer_;
  text::Corpus corpus_;
  Batches batches_;
  Progress progress_;
  StepRecord last_;
  bool stop_ = false;  // some rank was interrupted; all know it after the same step
  std::vector<std::vector<double>> cr_by_head_;  // of the stage that ended last
};

void wait_for_all(dist::Group& group, const at::Device& device) {
  group.sum(at::zeros({1}, device));
  group.settle();
}

}  // namespace

void check_run(const TrainOptions& options, int ranks) {
  nn::float_type(options.weights_dtype);  // refused before hours of work, not after
  if (is_retrofit(options)) require_windows(options);
  model::require_context(model::read_model_config(options.model_dir), "length", options.length);
  require_equal_shares(options, ranks);
}

Outcome run_training(const TrainOptions& options, const std::function<bool()>& interrupted,
                     const std::function<void(const StepRecord&)>& on_step, dist::Group& group,
                     const Judge& judge) {
  check_run(options, group.size());
  require_device(options);
  prepare_out_dir(options);
  try {
    Trainer trainer(options, interrupted, group, judge);
    const Outcome outcome = trainer.run(on_step);
    if (outcome == Outcome::kFinished && group.is_first()) {
      fs::remove(checkpoint_path(options.out_dir));
    }
    wait_for_all(group, device_of(options));  // who ends before the first fails if that does
    return outcome;
  } catch (const c10::OutOfMemoryError&) {
    throw invalid_argument("batch",
                           "the GPU's memory is too small for " + std::to_string(options.batch) +
                               " sequences of " + std::to_string(options.length) +
                               " tokens beside the model; give fewer, or a smaller --length");
  }
}

}  // namespace dmc::train
