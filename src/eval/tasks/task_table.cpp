#include "base/error.h"
#include "base/join.h"
#include "base/named.h"
#include "eval/tasks/agreement.h"
#include "eval/tasks/answer_length.h"
#include "eval/tasks/humaneval.h"
#include "eval/tasks/multi_turn.h"
#include "eval/tasks/needle.h"
#include "eval/tasks/readers.h"
#include "eval/tasks/recall.h"

namespace dmc::eval {
namespace fs = std::filesystem;
namespace {

using Reader = std::vector<ChoiceItem> (*)(const fs::path& file);

template <Reader read>
TaskScore choices(const TaskInput& input) {
  return score_choices(input, read(input.file));
}

TaskScore lambada(const TaskInput& input) {
  return score_last_word(input, read_lambada(input.file));
}

}  // namespace

const std::vector<Task>& tasks() {
  static const std::vector<Task> table = {
      {"piqa", "everyday physics, 2 choices", {"piqa/valid.jsonl"}, choices<read_piqa>, true},
      {"boolq", "yes or no after a passage", {"boolq/dev.jsonl"}, choices<read_boolq>, true},
      {"arc_easy",
       "school science",
       {"arc-easy/ARC-Easy-Test.jsonl", "arc-easy/test.json"},
       choices<read_arc>,
       true},
      {"arc_challenge",
       "school science, harder",
       {"arc-challenge/ARC-Challenge-Test.jsonl", "arc-challenge/test.json"},
       choices<read_arc>,
       true},
      {"hellaswag",
       "how a scene goes on, 4 choices",
       {"hellaswag/hellaswag_val.jsonl", "hellaswag/hellaswag_val_full.txt",
        "hellaswag/hellaswag_val_full.txt.bz2"},
       choices<read_hellaswag>,
       true},
      {"winogrande",
       "whom a pronoun means, 2 choices",
       {"winogrande/dev.jsonl", "winogrande/winogrande.jsonl", "winogrande/test.json"},
       choices<read_winogrande>,
       true},
      {"mmlu", "57 subjects, 4 choices, 5-shot", {"mmlu"}, choices<read_mmlu>},
      {"lambada", "the last word of a passage", {"lambada/lambada_test.jsonl"}, lambada},
      {.name = "humaneval",
       .summary = "Python functions, judged by tests; needs --allow-code",
       .files = {"humaneval/HumanEval.jsonl.gz", "humaneval/HumanEval.jsonl"},
       .run = run_humaneval,
       .runs_code = true},
      {.name = "needle",
       .summary = "a fact in long text, by length and depth; --data: other text",
       .files = {"needle/PaulGrahamEssays"},
       .run = run_needle,
       .any_text = true},
      {.name = "needle_multikey",
       .summary = "the same with three other facts beside it",
       .files = {"needle/PaulGrahamEssays"},
       .run = run_needle_multikey,
       .any_text = true},
      {.name = "recall",
       .summary = "names in held-out text last seen 256 tokens ago or more",
       .files = {},
       .run = run_recall,
       .on_text = true},
      {.name = "agreement",
       .summary = "with the same model uncompressed, or --reference: KL and first choices",
       .files = {},
       .run = run_agreement,
       .on_text = true,
       .compares = true},
      {.name = "multi_turn",
       .summary = "eight turns of held-out text, the cache kept against rebuilt",
       .files = {},
       .run = run_multi_turn,
       .on_text = true,
       .has_prompts = true},
      {.name = "answer_length",
       .summary = "how long texts get and how much they repeat, against --reference",
       .files = {},
       .run = run_answer_length,
       .on_text = true,
       .compares = true,
       .has_prompts = true},
  };
  return table;
}

const Task& find_task(std::string_view name) {
  if (const Task* task = find_named(tasks(), name)) return *task;
  throw invalid_argument("tasks", "\"" + std::string(name) + "\" is not one of text, " +
                                      join(tasks(), ", ", &Task::name));
}

fs::path find_file(const Task& task, const fs::path& data_dir) {
  if (task.files.empty()) return {};
  std::vector<std::string> paths;
  for (std::string_view name : task.files) {
    paths.push_back((data_dir / name).string());
    if (fs::exists(paths.back())) return paths.back();
  }
  throw invalid_argument("task " + std::string(task.name) + " needs " + join(paths, " or ") +
                         ", found none; put it there or give another --data-dir" +
                         (task.any_text ? ", or any text file as --data" : ""));
}

}  // namespace dmc::eval
