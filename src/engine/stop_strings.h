// Strings that end a text wherever they appear in it, across the borders of tokens.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dmc::engine {

// A text passes through as it is written; what may yet become a stop string is held back.
class StopStrings {
 public:
  // `keep`: the stop string that ends the text stays in it. None of `stops` is empty.
  explicit StopStrings(std::vector<std::string> stops, bool keep = false);

  // What of the text may be shown, now that `text` has come. Not after the text has ended.
  std::string push(std::string_view text);
  // What is still held back, of a text that ended in another way.
  std::string finish();

  // The string that ended the text, the first one to be complete (of several the longest).
  const std::optional<std::string>& found() const { return found_; }

 private:
  std::vector<std::string> stops_;
  bool keep_;
  std::string held_;
  std::optional<std::string> found_;
};

}  // namespace dmc::engine
