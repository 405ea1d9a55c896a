#include <algorithm>
#include <set>

#include "base/error.h"
#include "eval/data_file.h"
#include "eval/tasks/readers.h"
#include "text/packed_file.h"
#include "text/strings.h"

namespace dmc::eval {
namespace fs = std::filesystem;
namespace {

constexpr size_t kShots = 5, kChoices = 4;
const std::vector<std::string> kLetters = {"A", "B", "C", "D"};

struct Question {
  std::string prompt;
  size_t gold;
};

size_t read_answer(const std::string& answer, const std::string& where) {
  const auto letter = std::ranges::find(kLetters, answer);
  if (letter != kLetters.end()) return static_cast<size_t>(letter - kLetters.begin());
  return read_index(answer, kChoices, where);
}

Question make_question(const std::vector<std::string>& row, const std::string& where) {
  if (row.size() != kChoices + 2) {
    throw data_error(where + ": has " + std::to_string(row.size()) +
                     " cells, expected a question, four choices and the answer");
  }
  std::string prompt(text::stripped(row[0]));
  for (size_t i = 0; i < kChoices; ++i) prompt += "\n" + kLetters[i] + ". " + row[i + 1];
  return {prompt + "\nAnswer:", read_answer(row.back(), where)};
}

std::vector<Question> read_questions(const fs::path& file) {
  const auto rows = parse_csv(text::read_unpacked(file), file.string());
  std::vector<Question> questions;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i == 0 && rows[i].back() == "answer") continue;  // a header
    questions.push_back(make_question(rows[i], file.string() + ", row " + std::to_string(i + 1)));
  }
  return questions;
}

std::string few_shot_beginning(const std::string& subject, const std::vector<Question>& examples) {
  std::string text = "The following are multiple choice questions (with answers) about " +
                     text::replace_all(subject, "_", " ") + ".\n\n";
  for (size_t i = 0; i < std::min(kShots, examples.size()); ++i) {
    text += examples[i].prompt + " " + kLetters[examples[i].gold] + "\n\n";
  }
  return text;
}

std::set<std::string> find_subjects(const fs::path& folder) {
  constexpr std::string_view kSuffix = "_test.csv";
  std::set<std::string> subjects;
  if (!fs::is_directory(folder / "test") || !fs::is_directory(folder / "dev")) {
    throw data_error(folder.string() +
                     ": needs the folders dev and test with a CSV file a subject");
  }
  for (const auto& entry : fs::directory_iterator(folder / "test")) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(kSuffix)) subjects.insert(name.substr(0, name.size() - kSuffix.size()));
  }
  if (subjects.empty()) throw data_error((folder / "test").string() + ": no *_test.csv in it");
  return subjects;
}

}  // namespace

std::vector<ChoiceItem> read_mmlu(const fs::path& folder) {
  std::vector<ChoiceItem> items;
  for (const std::string& subject : find_subjects(folder)) {
    const std::string beginning =
        few_shot_beginning(subject, read_questions(folder / "dev" / (subject + "_dev.csv")));
    for (const Question& question : read_questions(folder / "test" / (subject + "_test.csv"))) {
      ChoiceItem item = make_choice_item(beginning + question.prompt, kLetters, question.gold);
      item.lengths.clear();
      item.beginning = beginning;
      item.subject = subject;
      items.push_back(std::move(item));
    }
  }
  return items;
}

}  // namespace dmc::eval
