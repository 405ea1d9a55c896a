// A string that knows which of its bytes a user wrote.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"

namespace dmc::text::chat {

// What a template writes is trusted: its "<|im_end|>" is a control token. What came in with the
// messages is not, and stays marked through slices, concatenations and most filters.
class Text {
 public:
  explicit Text(std::string bytes = "", bool untrusted = false);

  const std::string& bytes() const { return bytes_; }
  const std::vector<ByteRange>& untrusted() const { return untrusted_; }  // ascending, apart
  bool is_trusted() const { return untrusted_.empty(); }

  Text slice(size_t begin, size_t end) const;  // of bytes
  void append(const Text& other);
  // Other bytes made from these: wholly untrusted if any of these are.
  Text with_bytes(std::string bytes) const { return Text(std::move(bytes), !is_trusted()); }

 private:
  std::string bytes_;
  std::vector<ByteRange> untrusted_;
};

// Functions of Python's str, over code points. split() throws std::length_error where there are
// more parts than kMostParts, each of which takes a hundred bytes.
constexpr size_t kMostParts = size_t{1} << 18;
size_t count_of(std::string_view text, std::string_view part);  // apart, from the left; not of ""
Text stripped(const Text& text, bool left, bool right, std::string_view characters);
std::vector<Text> split(const Text& text);  // at white space
// At most `most` cuts (negative: no limit) from the left, or from the right.
std::vector<Text> split(const Text& text, std::string_view separator, int64_t most,
                        bool from_right);
Text replaced(const Text& text, const Text& from, const Text& to, int64_t most);

bool is_blank(char32_t c);  // what Python's str.strip() takes off
// Byte offset of each character, and of the end.
std::vector<size_t> character_offsets(std::string_view text);

}  // namespace dmc::text::chat
