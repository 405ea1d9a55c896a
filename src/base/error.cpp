#include "base/error.h"

namespace dmc {

void check_failed(const char* condition, const char* file, int line) {
  throw internal_error(std::string("internal check failed: ") + condition + " (" + file + ":" +
                       std::to_string(line) + ")");
}

}  // namespace dmc
