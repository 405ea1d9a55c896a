// The one exception type that reaches a user. What a user can cause is thrown as Error with a
// sentence that names what was found and what to do; what only a programmer can cause is an assert
// (DMC_CHECK). Who shows an error decides how: the command line prints the field as a flag and ends
// with exit_code(), a server answers with the field as `param` and a status.
#pragma once

#include <stdexcept>
#include <string>

namespace dmc {

enum class ErrorCode {
  kInvalidArgument,  // an option or a request is wrong
  kNotFound,         // what it names is not there
  kData,             // a model, tokenizer, data set or checkpoint is wrong
  kExhausted,        // a fixed budget (pages, sequences, memory) is spent; less at a time may do
  kCancelled,        // whoever asked does not want it any more
  kUnavailable,      // this machine or program lacks what is needed (a GPU, a library)
  kInternal,         // our own defect, or the machine failed us (disk full)
};

class Error : public std::runtime_error {
 public:
  // `field` is the option's plain name ("top_p"), empty if the sentence is about none; the sentence
  // does not repeat it.
  Error(ErrorCode code, std::string field, const std::string& sentence)
      : std::runtime_error(sentence), code_(code), field_(std::move(field)) {}
  Error(ErrorCode code, const std::string& sentence) : Error(code, "", sentence) {}

  ErrorCode code() const { return code_; }
  const std::string& field() const { return field_; }

 private:
  ErrorCode code_;
  std::string field_;
};

// What a program that fails with `code` ends with: 2 for what was asked, 3 for bad data, else 1.
int exit_code(ErrorCode code);

// As a command line shows it: "--top-p: expected ..." of the field top_p.
std::string command_line_sentence(const Error& error);

inline Error invalid_argument(const std::string& field, const std::string& sentence) {
  return {ErrorCode::kInvalidArgument, field, sentence};
}
inline Error invalid_argument(const std::string& sentence) {
  return {ErrorCode::kInvalidArgument, sentence};
}
inline Error not_found(const std::string& sentence) { return {ErrorCode::kNotFound, sentence}; }
inline Error data_error(const std::string& sentence) { return {ErrorCode::kData, sentence}; }
inline Error exhausted(const std::string& sentence) { return {ErrorCode::kExhausted, sentence}; }
inline Error unavailable(const std::string& field, const std::string& sentence) {
  return {ErrorCode::kUnavailable, field, sentence};
}
inline Error internal_error(const std::string& sentence) {
  return {ErrorCode::kInternal, sentence};
}

[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace dmc

// A programmer's mistake, checked in every build: the cost is one branch, and a wrong shape that
// went on would corrupt a user's cache. Throws Error(kInternal), so a server survives it.
#define DMC_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::dmc::check_failed(#condition, __FILE__, __LINE__))
