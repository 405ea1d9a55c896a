#include "base/error.h"

#include <algorithm>

namespace dmc {

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNotFound:
    case ErrorCode::kUnavailable:
      return 2;
    case ErrorCode::kData:
      return 3;
    default:
      return 1;
  }
}

std::string command_line_sentence(const Error& error) {
  if (error.field().empty()) return error.what();
  std::string flag = "--" + error.field();
  std::ranges::replace(flag, '_', '-');
  return flag + ": " + error.what();
}

void check_failed(const char* condition, const char* file, int line) {
  throw internal_error(std::string("internal check failed: ") + condition + " (" + file + ":" +
                       std::to_string(line) + ")");
}

}  // namespace dmc
