#include <algorithm>

#include "base/error.h"
#include "eval/data_file.h"
#include "eval/tasks/readers.h"
#include "text/packed_file.h"
#include "text/strings.h"

namespace dmc::eval {
namespace fs = std::filesystem;
namespace {

constexpr size_t kEndings = 4;

// Drops [header], [step] and the like, which the part taken from WikiHow is full of. As `.` of a
// regular expression does, a bracket that does not close on its line stays.
std::string without_brackets(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const size_t open = text.find('[');
    const size_t close = open == std::string_view::npos ? open : text.find_first_of("]\n", open);
    if (close == std::string_view::npos) break;
    const bool is_mark = text[close] == ']';
    result += text.substr(0, is_mark ? open : close);
    text.remove_prefix(is_mark ? close + 1 : close);
  }
  return result.append(text);
}

std::string cleaned(const std::string& text) {
  const std::string titles = text::replace_all(text::stripped(text), " [title]", ". ");
  return text::replace_all(without_brackets(titles), "  ", " ");
}

ChoiceItem item_of(const Record& record) {
  std::vector<std::string> endings = record.texts("endings");
  for (std::string& ending : endings) ending = cleaned(ending);
  const std::string context = record.text("ctx_a") + " " + text::capitalized(record.text("ctx_b"));
  return make_choice_item(cleaned(record.text("activity_label") + ": " + context), endings,
                          read_index(record.at("label"), endings.size(), record.where));
}

// The text form has lost where the second part of the context (ctx_b, a sentence's beginning)
// began: it is what follows the last full stop, if it starts in lower case.
std::string last_sentence_capitalized(std::string context) {
  const size_t stop = context.find_last_of(".!?");
  const size_t begin = stop == std::string::npos ? stop : context.find_first_not_of(' ', stop + 1);
  if (begin == std::string::npos || context[begin] < 'a' || context[begin] > 'z') return context;
  return context.substr(0, begin) + text::capitalized(context.substr(begin));
}

std::vector<ChoiceItem> read_text_form(const fs::path& file) {
  const std::string content = text::read_unpacked(file);
  const std::vector<std::string_view> lines = text::split_lines(content);
  constexpr size_t kLines = 2 + kEndings;
  std::vector<ChoiceItem> items;
  for (size_t at = 0; at + kLines <= lines.size(); at += kLines) {
    const std::string where = file.string() + ", line " + std::to_string(at + 2);
    items.push_back(make_choice_item(last_sentence_capitalized(std::string(lines[at])),
                                     {lines.begin() + static_cast<ptrdiff_t>(at) + 2,
                                      lines.begin() + static_cast<ptrdiff_t>(at + kLines)},
                                     read_index(std::string(lines[at + 1]), kEndings, where)));
  }
  return items;
}

}  // namespace

std::vector<ChoiceItem> read_hellaswag(const fs::path& file) {
  if (file.extension() != ".jsonl") return read_text_form(file);
  std::vector<ChoiceItem> items;
  for (const Record& record : read_json_lines(file)) items.push_back(item_of(record));
  return items;
}

}  // namespace dmc::eval
