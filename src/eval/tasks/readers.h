// Readers of the multiple-choice data sets: the published files, and other forms they are passed
// around in, to prompts that equal lm-evaluation-harness's word for word. Error(kData) naming file
// and line for what is not of the form.
#pragma once

#include <filesystem>
#include <vector>

#include "eval/tasks/choice.h"

namespace dmc::eval {

// goal, sol1, sol2 by line; the answers, 0 or 1, in *-labels.lst beside it.
std::vector<ChoiceItem> read_piqa(const std::filesystem::path& file);

// question, passage, answer (true or false, or as text) by line.
std::vector<ChoiceItem> read_boolq(const std::filesystem::path& file);

// .jsonl: question {stem, choices [{text, label}]}, answerKey. .json: instruction texts with
// numbered answers (LLM-Adapters).
std::vector<ChoiceItem> read_arc(const std::filesystem::path& file);

// .jsonl: activity_label, ctx_a, ctx_b, endings, label. Else text: six lines an item, the context,
// the number of the right ending from 0 and four endings, all as the harness cleans them but for
// the upper case at the start of the last sentence, which is put in.
std::vector<ChoiceItem> read_hellaswag(const std::filesystem::path& file);

// .jsonl: sentence, option1, option2, answer; or context_options, continuation, gold. .json:
// instruction texts (LLM-Adapters).
std::vector<ChoiceItem> read_winogrande(const std::filesystem::path& file);

// A folder with test/SUBJECT_test.csv and dev/SUBJECT_dev.csv: question, four choices, answer (A-D
// or 0-3). Five questions of dev come before each of test.
std::vector<ChoiceItem> read_mmlu(const std::filesystem::path& folder);

// text by line; its last word is to be found.
std::vector<ChoiceItem> read_lambada(const std::filesystem::path& file);

}  // namespace dmc::eval
