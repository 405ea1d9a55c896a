// The one exception type that reaches a user. What a user can cause is thrown as Error with a
// sentence that names the file, field or flag, what was found and what to do; what only a
// programmer can cause is an assert (DMC_CHECK). main() turns the kind into the exit code.
#pragma once

#include <stdexcept>
#include <string>

namespace dmc {

enum class ErrorKind {
  kInternal = 1,  // our own defect, or the machine failed us (disk full, out of memory)
  kUsage = 2,     // a flag or argument is wrong
  kData = 3,      // a model, tokenizer, data set or checkpoint is wrong
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& sentence) : std::runtime_error(sentence), kind_(kind) {}
  ErrorKind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  ErrorKind kind_;
};

inline Error usage_error(const std::string& sentence) { return {ErrorKind::kUsage, sentence}; }
inline Error data_error(const std::string& sentence) { return {ErrorKind::kData, sentence}; }
inline Error internal_error(const std::string& sentence) {
  return {ErrorKind::kInternal, sentence};
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace dmc

// A programmer's mistake, checked in every build: the cost is one branch, and a wrong shape that
// went on would corrupt a user's cache. Throws Error(kInternal), so a server survives it.
#define DMC_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::dmc::check_failed(#condition, __FILE__, __LINE__))
