#include "eval/tasks/instruction_form.h"

#include <cctype>
#include <string_view>

#include "base/error.h"
#include "base/quoted.h"
#include "text/strings.h"

namespace dmc::eval {
namespace {

[[noreturn]] void fail(const Record& record, const std::string& what) {
  throw data_error(record.where + ": " + what);
}

}  // namespace

InstructionForm read_instruction_form(const Record& record, const std::string& word) {
  const std::string text = record.text("instruction");
  // "Please choose the correct answer to the question: ...", then "Answer1: " at a line's start.
  const size_t intro = text.find(": ");
  const auto mark = [&](size_t number) { return word + std::to_string(number) + ": "; };
  const size_t first = text.find("\n" + mark(1));
  const size_t format = text.rfind("Answer format: ");
  if (intro == std::string::npos || first == std::string::npos || format == std::string::npos ||
      intro > first || format < first) {
    fail(record, "the instruction is not \"...: QUESTION\", then \"" + mark(1) +
                     "...\" on a line of its own, then \"Answer format: ...\"");
  }
  InstructionForm form;
  form.question = text::stripped(text.substr(intro + 2, first - intro - 2));
  size_t begin = first + 1 + mark(1).size();
  while (begin < format) {
    const size_t next = text.find(" " + mark(form.choices.size() + 2), begin);
    const size_t end = std::min(next, format);
    form.choices.emplace_back(text::stripped(std::string_view(text).substr(begin, end - begin)));
    begin = next == std::string::npos ? format : end + 1 + mark(form.choices.size() + 1).size();
  }
  const std::string answer = record.text("answer");
  for (size_t i = 0; i < form.choices.size(); ++i) {
    std::string name = word + std::to_string(i + 1);
    name[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(name[0])));
    if (answer == name) {
      form.gold = i;
      return form;
    }
  }
  fail(record, "the answer is " + in_quotes(answer) + ", which is none of the " +
                   std::to_string(form.choices.size()) + " choices");
}

}  // namespace dmc::eval
