#include "train/trainer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/join.h"
#include "base/rng.h"
#include "base/stopwatch.h"
#include "families/config_file.h"
#include "io/corpus.h"
#include "io/model_files.h"
#include "models/decision_channel.h"
#include "nn/weights.h"
#include "policy/schedule.h"
#include "train/checkpoint.h"
#include "train/method.h"
#include "train/model_card.h"
#include "train/optimizer.h"
#include "train/stage.h"

namespace dmc::train {
namespace {

namespace fs = std::filesystem;

std::string to_line(const StepRecord& r) {
  return nlohmann::ordered_json{{"step", r.step},
                                {"stage", r.stage},
                                {"loss", r.loss},
                                {"extra_loss", r.extra_loss},
                                {"cr", r.cr},
                                {"wanted_cr", r.wanted_cr},
                                {"compression_weight", r.compression_weight},
                                {"learning_rate", r.learning_rate},
                                {"gradient_norm", r.gradient_norm},
                                {"tokens", r.tokens},
                                {"tokens_per_second", r.tokens_per_second}}
      .dump();
}

// train.jsonl: appended a line a step; on resume, lines past the checkpoint are cut off, because
// those steps will be run again.
class StepLog {
 public:
  StepLog(const fs::path& path, int64_t steps_done) : path_(path) {
    std::string kept;
    if (steps_done > 0) {
      std::ifstream in(path);
      std::string line;
      for (int64_t i = 0; i < steps_done && std::getline(in, line); ++i) kept += line + "\n";
    }
    out_.open(path, std::ios::trunc);
    out_ << kept << std::flush;
    check();
  }
  void write(const StepRecord& record) {
    out_ << to_line(record) << std::endl;
    check();
  }

 private:
  void check() {
    if (!out_) throw internal_error(path_.string() + ": cannot write the training log");
  }
  fs::path path_;
  std::ofstream out_;
};

models::Decoder initial_model(const TrainOptions& options) {
  io::ModelConfig config = families::read_model_config(options.model_dir);
  if (config.dmc && config.dmc->zero_after_rope) {
    throw data_error((options.model_dir / "config.json").string() +
                     ": dmc_config has zero_after_rope, which is implemented for running a model "
                     "but not for training one");
  }
  if (!options.fresh) return models::Decoder::load(options.model_dir);
  config.dmc.reset();
  return models::Decoder::create(config, options.seed);
}

// Each row of a batch reads its own stream of documents: neighbouring rows of one stream would be
// parts of one file, and a batch that much alike makes a poor gradient.
std::vector<io::TokenFeed> make_feeds(const io::Corpus& corpus, const io::Tokenizer& tokenizer,
                                      int32_t separator, const TrainOptions& options) {
  std::vector<io::TokenFeed> feeds;
  for (int64_t row = 0; row < options.batch; ++row) {
    feeds.emplace_back(corpus, tokenizer, separator,
                       random_bits(options.seed, 0, static_cast<uint64_t>(row)));
  }
  return feeds;
}

// [batch, length + 1] token ids: inputs and, shifted by one, targets.
at::Tensor next_batch(std::vector<io::TokenFeed>& feeds, int64_t length) {
  const at::Tensor batch = at::empty({static_cast<int64_t>(feeds.size()), length + 1}, at::kLong);
  int64_t* next = batch.mutable_data_ptr<int64_t>();
  std::vector<int32_t> ids(static_cast<size_t>(length + 1));
  for (io::TokenFeed& feed : feeds) {
    feed.read(ids);
    next = std::copy(ids.begin(), ids.end(), next);
  }
  return batch;
}

class Trainer {
 public:
  explicit Trainer(const TrainOptions& options)
      : options_(options),
        model_(initial_model(options)),
        optimizer_((require_gradients(model_), model_.parameters()), options),
        tokenizer_(options.model_dir),
        corpus_(options.data.empty() ? io::builtin_corpus(io::Split::kTrain) : options.data,
                io::Split::kTrain),
        feeds_(make_feeds(corpus_, tokenizer_,
                          io::document_separator(model_.config(), options.model_dir), options)) {
    io::require_context(model_.config(), "--length", options.length);
    progress_.compression_weight = options.retrofit.compression_weight;
    if (!options.resume) return;
    progress_ = load_checkpoint(options_, model_, optimizer_);
    for (size_t row = 0; row < feeds_.size(); ++row) feeds_[row].seek(progress_.feeds.at(row));
  }

  Outcome run(const std::function<bool()>& interrupted,
              const std::function<void(const StepRecord&)>& on_step) {
    StepLog log(options_.out_dir / "train.jsonl", progress_.step);
    int64_t stage_start = 0;
    for (const StageRun& run : options_.stages) {
      const int64_t stage_end = stage_start + run.steps;
      const auto attention = run.stage->attention(model_.config(), options_);
      while (progress_.step < stage_end) {
        const StepRecord record = step(run, *attention, progress_.step - stage_start);
        // Done with the stage's last step, so that a checkpoint never falls between the two.
        if (progress_.step == stage_end && run.stage->finish) run.stage->finish(model_, options_);
        log.write(record);
        last_ = record;
        if (on_step) on_step(record);
        if (interrupted()) {
          save();
          return Outcome::kInterrupted;
        }
        if (progress_.step % options_.checkpoint_every == 0) save();
      }
      stage_start = stage_end;
      cr_by_head_ = attention->cr_by_head();
    }
    write_model();
    return Outcome::kFinished;
  }

 private:
  static void require_gradients(const models::Decoder& model) {
    for (const auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
  }

  StepRecord step(const StageRun& run, TrainAttention& attention, int64_t step_in_stage) {
    const Stopwatch watch;
    attention.begin_step(
        {step_in_stage, run.steps, progress_.step, options_.seed, progress_.compression_weight});
    const at::Tensor batch = next_batch(feeds_, options_.length);
    const at::Tensor inputs = batch.narrow(1, 0, options_.length);
    const at::Tensor targets = batch.narrow(1, 1, options_.length);
    const at::Tensor logits = model_.logits(model_.hidden(inputs, attention));
    const at::Tensor loss = at::cross_entropy_loss(logits.flatten(0, 1), targets.reshape({-1}));
    const at::Tensor extra = attention.extra_loss();
    (extra.defined() ? loss + extra : loss).backward();

    StepRecord record;
    record.stage = run.stage->name;
    record.learning_rate = policy::learning_rate(
        progress_.step, options_.total_steps(), options_.warmup_steps, options_.decay_steps,
        options_.learning_rate, options_.final_learning_rate);
    record.gradient_norm = optimizer_.step(record.learning_rate);
    record.loss = loss.item<double>();
    if (!std::isfinite(record.loss)) {
      throw internal_error("the loss is not finite at step " + std::to_string(progress_.step + 1) +
                           "; resume from the last checkpoint with a lower --lr");
    }
    record.extra_loss = extra.defined() ? extra.item<double>() : 0.0;
    record.cr = attention.measured_cr();
    record.wanted_cr = attention.wanted_cr();
    record.compression_weight = progress_.compression_weight;
    progress_.compression_weight = policy::adapted_weight(
        progress_.compression_weight, options_.retrofit.weight_gain, record.wanted_cr, record.cr);

    progress_.step += 1;
    progress_.tokens += options_.batch * options_.length;
    record.step = progress_.step;
    record.tokens = progress_.tokens;
    record.tokens_per_second =
        static_cast<double>(options_.batch * options_.length) / watch.seconds();
    return record;
  }

  void save() {
    progress_.feeds.clear();
    for (const io::TokenFeed& feed : feeds_) progress_.feeds.push_back(feed.position());
    save_checkpoint(options_, model_, optimizer_, progress_);
  }

  void write_model() {
    const std::string stage(options_.stages.back().stage->name);
    if (stage != "dense") finish_retrofit(stage);
    model_.save(options_.out_dir, {nn::float_type(options_.weights_dtype)});
    io::copy_companions(options_.model_dir, options_.out_dir);
  }

  void finish_retrofit(const std::string& stage) {
    const RetrofitOptions& retrofit = options_.retrofit;
    save();  // the checkpoint stays as it was trained; the model that is shipped is plain DMC
    models::scale_decision_channel(model_, retrofit.decision_scale);
    model_.config().dmc = io::DmcConfig{retrofit.target_cr, retrofit.window, retrofit.offset, stage,
                                        progress_.tokens,   options_.length, retrofit.method};
    io::write_file_atomically(options_.out_dir / "README.md", to_markdown(card()));
  }

  ModelCard card() const {
    ModelCard card;
    card.base_model = options_.model_dir.lexically_normal().filename().string();
    card.architecture = families::find_family(model_.config().model_type)->dmc_architecture;
    card.data = options_.data.empty()
                    ? "the built-in corpus of Python sources"
                    : join(options_.data, ", ", [](const fs::path& path) { return path.string(); });
    card.method = find_method(options_.retrofit.method);
    card.target_cr = options_.retrofit.target_cr;
    card.measured_cr = last_.cr;
    card.window = options_.retrofit.window;
    card.tokens = progress_.tokens;
    card.length = options_.length;
    card.loss = last_.loss;
    card.cr_by_head = cr_by_head_;
    card.command = options_.command;
    return card;
  }

  const TrainOptions& options_;
  models::Decoder model_;
  AdamW optimizer_;
  io::Tokenizer tokenizer_;
  io::Corpus corpus_;
  std::vector<io::TokenFeed> feeds_;
  Progress progress_;
  StepRecord last_;
  std::vector<std::vector<double>> cr_by_head_;  // of the stage that ended last
};

void prepare_out_dir(const TrainOptions& options) {
  std::error_code error;
  fs::create_directories(options.out_dir, error);
  if (error) {
    throw usage_error("--out: cannot make " + options.out_dir.string() + ": " + error.message());
  }
  const bool exists = fs::exists(checkpoint_path(options.out_dir));
  if (exists && !options.resume) {
    throw usage_error("--out: " + options.out_dir.string() +
                      " holds an unfinished run; add --resume to go on with it, or name another "
                      "folder");
  }
  if (!exists && options.resume) {
    throw usage_error("--resume: there is no checkpoint in " + options.out_dir.string());
  }
}

}  // namespace

Outcome run_training(const TrainOptions& options, const std::function<bool()>& interrupted,
                     const std::function<void(const StepRecord&)>& on_step) {
  nn::float_type(options.weights_dtype);  // refused before hours of work, not after
  if (options.stages.back().stage->name != "dense") require_window(options);
  prepare_out_dir(options);
  Trainer trainer(options);
  const Outcome outcome = trainer.run(interrupted, on_step);
  if (outcome == Outcome::kFinished) fs::remove(checkpoint_path(options.out_dir));
  return outcome;
}

}  // namespace dmc::train
