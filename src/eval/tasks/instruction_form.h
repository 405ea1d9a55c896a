// The form in which LLM-Adapters passes data sets around: an instruction text that ends with
// numbered choices, and the answer as "answer2".
#pragma once

#include <string>
#include <vector>

#include "eval/data_file.h"

namespace dmc::eval {

struct InstructionForm {
  std::string question;
  std::vector<std::string> choices;
  size_t gold = 0;
};

// `word` is what the choices are numbered with: "Answer" for "Answer1: ... Answer2: ...".
InstructionForm read_instruction_form(const Record& record, const std::string& word);

}  // namespace dmc::eval
