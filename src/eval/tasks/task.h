// A task: data, prompts and a metric. One line in task_table.cpp each.
#pragma once

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model_runner.h"
#include "text/corpus.h"
#include "text/tokenizer.h"

namespace dmc::eval {

struct Metric {
  std::string name;  // "acc", "acc_norm", "perplexity", ...
  double value = 0.0;
  double standard_error = NAN;  // of `value`; NaN where it is not known
};

// Values by two properties of the items, e.g. by length and depth.
struct Grid {
  std::string row_label, column_label;
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;  // [rows][columns]
};

struct TaskScore {
  int64_t items = 0;
  std::vector<Metric> metrics;     // the one to quote is the last
  double compression_ratio = 1.0;  // of the caches the score came from
  std::vector<Grid> grids = {};    // the last metric in more detail
};

// How tasks that run generated code do it.
struct CodeOptions {
  int64_t samples = 1;       // answers to each problem
  double temperature = 0.2;  // with one sample: 0
  uint64_t seed = 0;
};

// What a task is run on. The runner's cache is compressed as its policy says.
struct TaskInput {
  engine::ModelRunner& runner;
  const text::Tokenizer& tokenizer;
  std::vector<int64_t> end_of_text;          // tokens that end a generated text
  std::filesystem::path file;                // that of Task::files which was found
  const text::EvalWindows* text = nullptr;   // for tasks that need held-out text
  engine::ModelRunner* reference = nullptr;  // for tasks that compare with it
  int64_t limit = 0;                         // items at most (of each subject, for MMLU); 0: all
  CodeOptions code;
  std::function<void(int64_t done, int64_t total)> progress = [](int64_t, int64_t) {};
};

struct Task {
  std::string_view name;
  std::string_view summary;
  std::vector<std::string_view> files;  // under the data folder; any one of them
  TaskScore (*run)(const TaskInput& input);
  bool commonsense = false;  // one of the six whose average is called CS-QA
  bool runs_code = false;    // runs what the model writes: asked for, and in a sandbox
  bool on_text = false;      // needs TaskInput::text
  bool compares = false;     // needs TaskInput::reference
  bool has_prompts = false;  // on_text, but parts of the text come as prompts
  bool any_text = false;     // a text file of the user's does as well as `files`
};

const std::vector<Task>& tasks();              // task_table.cpp
const Task& find_task(std::string_view name);  // Error(kInvalidArgument) that lists the names

// The file of `task` under `data_dir`; Error(kInvalidArgument) that says what to put where.
std::filesystem::path find_file(const Task& task, const std::filesystem::path& data_dir);

}  // namespace dmc::eval
