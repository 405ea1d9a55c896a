// dmc sweep: models x policies x ratios x tasks in one table that can be stopped and goes on, and a
// report.
#include <algorithm>
#include <iostream>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/human.h"
#include "base/join.h"
#include "base/progress.h"
#include "base/stopwatch.h"
#include "cli/bench_text.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/task_support.h"
#include "eval/score.h"
#include "eval/sweep/plan.h"
#include "eval/sweep/sweep_report.h"
#include "model/config_file.h"
#include "runtime/measure.h"

namespace dmc::cli {
namespace {

namespace fs = std::filesystem;

struct SweepCommand {
  std::vector<fs::path> models;
  std::vector<std::string> policies, kvs = {"f32"};
  std::vector<std::string> tasks = {eval::kTextTask, "recall", "multi_turn", eval::kSpeedTask};
  std::vector<double> crs = {2, 3, 4, 6, 8};
  TextOptions text{.data = {}, .length = 2048, .windows = 16};
  fs::path data_dir = "data", out = "sweep-out";
  int64_t limit = 0;
  ModelOptions options;  // threads, weights and device; the rest is the sweep's
  bool quick = false, report_only = false;
};

constexpr int64_t kSpeedBatch = 4, kSpeedSteps = 32;
constexpr int kSpeedRepeats = 2;

// Thrown out of a cell when the user wants to stop: what is half measured is worth nothing.
struct Stopped {};

void stop_if_asked() {
  if (interrupted()) throw Stopped();
}

// How much is measured, of what: all that a score depends on beside the axes.
std::string size_of(const SweepCommand& command, const std::string& task) {
  const std::string length = std::to_string(command.text.length);
  const bool is_text = task == eval::kTextTask, is_speed = task == eval::kSpeedTask;
  std::vector<std::string> parts;
  if (is_speed) {
    parts.push_back(std::to_string(kSpeedBatch) + " sequences of " + length);
  } else if (is_text || eval::find_task(task).on_text) {
    parts.push_back(std::to_string(command.text.windows) + " windows of " + length);
  }
  if (!is_text && !is_speed && command.limit > 0) {
    parts.push_back("at most " + std::to_string(command.limit) + " items");
  }
  std::string size = join(parts, ", ");
  for (const fs::path& data : command.text.data) size += " " + data.string();
  if (!command.options.weights.empty()) size += ", " + command.options.weights + " weights";
  if (command.options.device != "cpu") size += ", on " + command.options.device;
  return size;
}

// What all cells of one model share.
struct Subject {
  fs::path dir;
  runtime::PlacedModel placed;
  text::Tokenizer tokenizer;
  text::EvalWindows windows;
  std::vector<int32_t> speed_text;

  Subject(const SweepCommand& command, const ModelOptions& options)
      : dir(options.dir),
        placed(place_model(options)),
        tokenizer(dir, placed.model().config.vocab_size),
        windows(text_windows(command.text, placed.model(), dir)),
        speed_text(bench_text(command.text.data, placed.model(), dir, command.text.length)) {}
};

runtime::RunnerOptions runner_options_of(const eval::SweepCell& cell) {
  runtime::RunnerOptions options;
  options.compression.policy = cell.policy;
  options.compression.cr = cell.cr;
  options.kv = precision(cell.kv);
  return options;
}

eval::TaskScore measure_speed(const Subject& subject, const eval::SweepCell& cell) {
  const auto context = static_cast<int64_t>(subject.speed_text.size());
  const runtime::MeasureOptions options{.contexts = {context},
                                        .batches = {kSpeedBatch},
                                        .decode_tokens = kSpeedSteps,
                                        .repeats = kSpeedRepeats};
  const runtime::Measurement m =
      runtime::measure({{cell.policy, subject.placed, runner_options_of(cell)}}, subject.speed_text,
                       options, [](int64_t, int64_t) {})
          .front();
  const auto tokens = static_cast<double>(context * kSpeedBatch);
  return {kSpeedBatch,
          {{eval::kBytesPerToken, static_cast<double>(m.cache_bytes) / tokens},
           {eval::kPrefill, m.prefill_tokens_per_second},
           {eval::kDecode, m.decode_tokens_per_second}},
          m.compression_ratio};
}

// Runs the cells of a plan that are not in the file yet.
class Sweep {
 public:
  Sweep(const SweepCommand& command, std::vector<eval::SweepCell> cells, eval::SweepFile& file)
      : command_(command), cells_(std::move(cells)), file_(file) {}

  void run() {
    ProgressBar bar("sweep", static_cast<int64_t>(cells_.size()));
    for (size_t i = 0; i < cells_.size(); ++i) {
      if (file_.has(cells_[i])) continue;
      stop_if_asked();
      const std::string name = describe(cells_[i]);
      const auto show = [&](int64_t done, int64_t total) {
        stop_if_asked();
        bar.update(static_cast<int64_t>(i),
                   name + " " + std::to_string(100 * done / std::max<int64_t>(total, 1)) + "%");
      };
      show(0, 1);
      measure(cells_[i], show);
      bar.update(static_cast<int64_t>(i) + 1, name);
    }
  }

 private:
  using Show = std::function<void(int64_t done, int64_t total)>;

  static std::string describe(const eval::SweepCell& cell) {
    const std::string ratio = cell.cr > 0.0 ? " " + fixed(cell.cr, 1) + "x" : "";
    return fs::path(cell.model).filename().string() + " " + cell.policy + ratio + " " + cell.kv +
           " " + cell.task;
  }

  void measure(const eval::SweepCell& cell, const Show& show) {
    const Stopwatch watch;
    use_model(cell.model);
    eval::SweepRecord record{cell, {}, {}, 0.0};
    if (cell.task == eval::kSpeedTask) {
      record.score = measure_speed(*subject_, cell);
    } else {
      const auto runner = subject_->placed.make_runner(runner_options_of(cell));
      if (cell.task == eval::kTextTask) {
        score_text(*runner, show, &record);
      } else {
        record.score = run_task(*runner, cell, show);
      }
    }
    record.seconds = watch.seconds();
    file_.append(std::move(record));
  }

  void use_model(const std::string& dir) {
    if (subject_ && subject_->dir == dir) return;
    reference_.reset();
    subject_.reset();
    ModelOptions options = command_.options;
    options.dir = dir;
    subject_.emplace(command_, options);
  }

  void score_text(runtime::Runner& runner, const Show& show, eval::SweepRecord* record) {
    const int64_t total = subject_->windows.total_tokens();
    const eval::Score score =
        eval::score(runner, subject_->windows, [&](int64_t done) { show(done, total); });
    record->score = as_task(score);
    record->cr_by_head = score.cr_by_head;
  }

  eval::TaskScore run_task(runtime::Runner& runner, const eval::SweepCell& cell, const Show& show) {
    const eval::Task& task = eval::find_task(cell.task);
    if (task.compares && !reference_) {
      reference_ = subject_->placed.make_runner({.compression = {.policy = "dense"}});
    }
    return task.run({.runner = runner,
                     .tokenizer = subject_->tokenizer,
                     .end_of_text = subject_->placed.model().config.eos_token_ids,
                     .file = task_file(task, command_.text, command_.data_dir),
                     .text = &subject_->windows,
                     .reference = reference_.get(),
                     .limit = command_.limit,
                     .progress = show});
  }

  const SweepCommand& command_;
  std::vector<eval::SweepCell> cells_;
  eval::SweepFile& file_;
  std::optional<Subject> subject_;  // of the model in hand
  std::unique_ptr<runtime::Runner> reference_;
};

// Whatever is missing is said before the first cell runs.
void check_tasks(const SweepCommand& command) {
  for (const std::string& name : command.tasks) {
    if (name == eval::kTextTask || name == eval::kSpeedTask) continue;
    const eval::Task& task = eval::find_task(name);
    if (task.runs_code) {
      throw invalid_argument("--tasks: " + name +
                             " runs code that the model writes, which a sweep does " +
                             "not; use `dmc eval --allow-code`");
    }
    task_file(task, command.text, command.data_dir);
  }
}

eval::SweepAxes axes_of(const SweepCommand& command) {
  eval::SweepAxes axes;
  for (const fs::path& dir : command.models) {
    ModelOptions options = command.options;
    options.dir = dir;
    require_model(options);
    const model::ModelConfig config = model::read_model_config(dir);
    axes.models.push_back({dir.string(), config.dmc ? config.dmc->method : ""});
  }
  axes.policies = command.policies;
  axes.crs = command.crs;
  axes.kvs = command.kvs;
  axes.tasks = command.tasks;
  axes.size_of = [&](const std::string& task) { return size_of(command, task); };
  return axes;
}

void shorten(SweepCommand& command) {
  command.crs = {2, 4, 8};
  command.text.windows = 2;
  command.text.length = 1024;
  if (command.limit == 0) command.limit = 1;
}

void write_report(const SweepCommand& command, const eval::SweepFile& file) {
  const fs::path path = command.out / "report.html";
  write_file_atomically(path, eval::render_sweep_report(file.records()));
  std::cout << "report: " << path.string() << "\n";
}

int run(SweepCommand command) {
  if (command.quick) shorten(command);
  fs::create_directories(command.out);
  eval::SweepFile file(command.out / "sweep.jsonl");
  bool stopped = false;
  if (!command.report_only) {
    check_tasks(command);
    std::vector<eval::SweepCell> cells = eval::plan_sweep(axes_of(command));
    const auto done = std::ranges::count_if(cells, [&](const auto& c) { return file.has(c); });
    std::cerr << cells.size() << " cells, " << done << " of them measured before\n";
    catch_interrupts();
    try {
      Sweep(command, std::move(cells), file).run();
    } catch (const Stopped&) {
      std::cerr << "stopped; the same command goes on from here\n";
      stopped = true;
    }
  }
  eval::print_sweep(std::cout, file.records());
  write_report(command, file);
  return stopped ? kExitInterrupted : 0;
}

}  // namespace

std::function<int()> setup_sweep(CLI::App& app) {
  auto command = std::make_shared<SweepCommand>();
  command->models = {shipped_model("builtin"), shipped_model("builtin-4x")};
  const auto list = [&](const char* flag, auto& values, const std::string& what) {
    return app.add_option(flag, values, what)->delimiter(',');
  };
  list("-m,--models", command->models, "model directories")
      ->default_str("models/builtin,models/builtin-4x");
  list("--policies", command->policies,
       "policies (default: dense and all with a budget on a dense model, its own on a retrofitted "
       "one)");
  list("--cr", command->crs, "compression ratios")
      ->check(CLI::Range(1.0, 64.0))
      ->capture_default_str();
  list("--tasks", command->tasks, "text, speed, and those of dmc eval")->capture_default_str();
  list("--kv", command->kvs, "precisions of the cache's closed slots")
      ->check(slot_precision_problem)
      ->capture_default_str();
  add_weight_precision(app, "--weights", command->options.weights,
                       "precision of the weights in memory (default: the checkpoint's)");
  add_threads(app, command->options.threads);
  add_device_option(app, command->options);
  add_text_options(app, command->text);
  app.add_option("--data-dir", command->data_dir, "folder with the tasks' files")
      ->capture_default_str();
  app.add_option("--limit", command->limit, "items of a task at most")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("-o,--out", command->out, "folder for sweep.jsonl and report.html")
      ->capture_default_str();
  app.add_flag("--quick", command->quick, "some minutes: 2, 4 and 8x, two windows of 1024 tokens");
  app.add_flag("--report-only", command->report_only, "only write the report of what is there");
  app.footer(
      "Stopped anywhere (Ctrl-C too), the same command goes on where it was.\n"
      "Examples:\n"
      "  dmc sweep --quick\n"
      "  dmc sweep -m my-model,my-4x --cr 2,4 --kv f32,int8 --tasks text,recall,speed");
  return [command] { return run(*command); };
}

}  // namespace dmc::cli
