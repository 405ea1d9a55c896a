// PCRE2 with the limits that patterns and texts from strangers need.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "text/work.h"

namespace dmc::text {

class Regex {
 public:
  // Unicode-aware. `origin` names the file for Error(kData) when the pattern does not compile.
  Regex(const std::string& pattern, const std::string& origin);
  ~Regex();
  Regex(Regex&&) noexcept;

  // Calls fn(begin, end) for every match in `text`, from left to right; empty matches are skipped.
  // `text` must be valid UTF-8: it is not checked again for each match, which would make the whole
  // quadratic. Error(kData) if a match needs more backtracking than the limit, or all together more
  // time than `work` has.
  void for_each_match(std::string_view text, Work& work,
                      const std::function<void(size_t, size_t)>& fn) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

std::string escape_regex(std::string_view literal);

}  // namespace dmc::text
