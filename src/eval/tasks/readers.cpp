#include "eval/tasks/readers.h"

#include <algorithm>

#include "base/error.h"
#include "base/quoted.h"
#include "eval/data_file.h"
#include "eval/tasks/instruction_form.h"
#include "text/packed_file.h"
#include "text/strings.h"

namespace dmc::eval {
namespace fs = std::filesystem;
namespace {

std::string question_prompt(const std::string& question) {
  return "Question: " + question + "\nAnswer:";
}

bool read_truth(const Record& record) {
  const auto& answer = record.at("answer");
  if (answer.is_boolean()) return answer.get<bool>();
  const std::string text = text::capitalized(record.text("answer"));
  if (text != "True" && text != "False") {
    throw data_error(record.where + ": the answer is " + in_quotes(text) +
                     ", expected true or false");
  }
  return text == "True";
}

ChoiceItem arc_item(const Record& record) {
  const Record question{record.at("question"), record.where + ", question"};
  const std::string key = record.text("answerKey");
  std::vector<std::string> choices;
  std::optional<size_t> gold;
  for (const auto& entry : question.at("choices")) {
    const Record choice{entry, question.where};
    if (choice.text("label") == key) gold = choices.size();
    choices.push_back(choice.text("text"));
  }
  if (!gold) throw data_error(record.where + ": no choice has the label of answerKey, " + key);
  return make_choice_item(question_prompt(question.text("stem")), choices, *gold);
}

// What comes before the blank with each option put in, and what comes after.
ChoiceItem winogrande_item(const std::string& sentence, const std::vector<std::string>& options,
                           size_t gold, const std::string& where) {
  const size_t blank = sentence.find('_');
  if (blank == std::string::npos) throw data_error(where + ": the sentence has no blank (_)");
  ChoiceItem item;
  for (const std::string& option : options) {
    item.contexts.push_back(sentence.substr(0, blank) + option);
  }
  item.endings = {" " + std::string(text::stripped(sentence.substr(blank + 1)))};
  item.gold = gold;
  return item;
}

ChoiceItem winogrande_record(const Record& record) {
  if (record.has("sentence")) {
    const size_t answer = read_index(record.at("answer"), 3, record.where);
    if (answer == 0) throw data_error(record.where + ": the answer is 0, expected 1 or 2");
    return winogrande_item(record.text("sentence"),
                           {record.text("option1"), record.text("option2")}, answer - 1,
                           record.where);
  }
  ChoiceItem item;
  item.contexts = record.texts("context_options");
  item.endings = {" " + record.text("continuation")};
  item.gold = read_index(record.at("gold"), item.contexts.size(), record.where);
  return item;
}

}  // namespace

std::vector<ChoiceItem> read_piqa(const fs::path& file) {
  const fs::path labels_file = file.parent_path() / (file.stem().string() + "-labels.lst");
  const std::string labels_text = text::read_unpacked(labels_file);
  const std::vector<std::string_view> labels = text::split_lines(labels_text);
  const std::vector<Record> records = read_json_lines(file);
  if (labels.size() != records.size()) {
    throw data_error(labels_file.string() + ": has " + std::to_string(labels.size()) +
                     " lines, expected " + std::to_string(records.size()) + " as in " +
                     file.string());
  }
  std::vector<ChoiceItem> items;
  for (const Record& record : records) {
    const std::string label(text::stripped(labels[items.size()]));
    items.push_back(make_choice_item(question_prompt(record.text("goal")),
                                     {record.text("sol1"), record.text("sol2")},
                                     read_index(label, 2, labels_file.string())));
  }
  return items;
}

std::vector<ChoiceItem> read_boolq(const fs::path& file) {
  std::vector<ChoiceItem> items;
  for (const Record& record : read_json_lines(file)) {
    items.push_back(make_choice_item(
        record.text("passage") + "\nQuestion: " + record.text("question") + "?\nAnswer:",
        {"no", "yes"}, read_truth(record)));
    items.back().lengths.clear();
  }
  return items;
}

std::vector<ChoiceItem> read_arc(const fs::path& file) {
  std::vector<ChoiceItem> items;
  if (file.extension() == ".json") {
    for (const Record& record : read_json_array(file)) {
      const InstructionForm form = read_instruction_form(record, "Answer");
      items.push_back(make_choice_item(question_prompt(form.question), form.choices, form.gold));
    }
    return items;
  }
  for (const Record& record : read_json_lines(file)) items.push_back(arc_item(record));
  return items;
}

std::vector<ChoiceItem> read_winogrande(const fs::path& file) {
  std::vector<ChoiceItem> items;
  if (file.extension() == ".json") {
    for (const Record& record : read_json_array(file)) {
      const InstructionForm form = read_instruction_form(record, "Option");
      items.push_back(winogrande_item(form.question, form.choices, form.gold, record.where));
    }
    return items;
  }
  for (const Record& record : read_json_lines(file)) items.push_back(winogrande_record(record));
  return items;
}

std::vector<ChoiceItem> read_lambada(const fs::path& file) {
  std::vector<ChoiceItem> items;
  for (const Record& record : read_json_lines(file)) {
    const std::string text = record.text("text");
    const size_t space = text.rfind(' ');
    if (space == std::string::npos) throw data_error(record.where + ": the text is one word");
    ChoiceItem item;
    item.contexts = {text.substr(0, space)};
    item.endings = {text.substr(space)};
    items.push_back(std::move(item));
  }
  return items;
}

}  // namespace dmc::eval
