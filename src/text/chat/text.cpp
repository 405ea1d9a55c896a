#include "text/chat/text.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "base/utf8.h"
#include "text/unicode.h"

namespace dmc::text::chat {
namespace {

void add_part(Text part, std::vector<Text>* parts) {
  if (parts->size() == kMostParts) throw std::length_error("a string splits into too many parts");
  parts->push_back(std::move(part));
}

}  // namespace

Text::Text(std::string bytes, bool untrusted) : bytes_(std::move(bytes)) {
  if (untrusted && !bytes_.empty()) untrusted_.push_back({0, bytes_.size()});
}

Text Text::slice(size_t begin, size_t end) const {
  Text part(bytes_.substr(begin, end - begin));
  auto range = std::ranges::partition_point(
      untrusted_, [begin](const ByteRange& before) { return before.end <= begin; });
  for (; range != untrusted_.end() && range->begin < end; ++range) {
    const size_t from = std::max(range->begin, begin), to = std::min(range->end, end);
    if (from < to) part.untrusted_.push_back({from - begin, to - begin});
  }
  return part;
}

void Text::append(const Text& other) {
  const size_t shift = bytes_.size();
  bytes_ += other.bytes_;
  for (const ByteRange& range : other.untrusted_) {
    const ByteRange moved{range.begin + shift, range.end + shift};
    if (!untrusted_.empty() && untrusted_.back().end == moved.begin) {
      untrusted_.back().end = moved.end;
    } else {
      untrusted_.push_back(moved);
    }
  }
}

bool is_blank(char32_t c) { return is_white_space(c) || (c >= 0x1c && c <= 0x1f); }

std::vector<size_t> character_offsets(std::string_view text) {
  std::vector<size_t> offsets;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((text[i] & 0xc0) != 0x80) offsets.push_back(i);
  }
  offsets.push_back(text.size());
  return offsets;
}

Text stripped(const Text& text, bool left, bool right, std::string_view characters) {
  std::u32string set;
  while (!characters.empty()) set += take_code_point(&characters);
  const auto goes = [&](char32_t c) { return set.empty() ? is_blank(c) : set.find(c) != set.npos; };
  const std::string_view bytes = text.bytes();
  size_t begin = 0, end = bytes.size();
  for (std::string_view rest = bytes; left && !rest.empty() && goes(take_code_point(&rest));) {
    begin = bytes.size() - rest.size();
  }
  while (right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (bytes[last] & 0xc0) == 0x80) --last;
    std::string_view character = bytes.substr(last, end - last);
    if (!goes(take_code_point(&character))) break;
    end = last;
  }
  return text.slice(begin, end);
}

size_t count_of(std::string_view text, std::string_view part) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(part, at)) != text.npos; at += part.size()) ++count;
  return count;
}

std::vector<Text> split(const Text& text) {
  std::vector<Text> parts;
  const std::string_view bytes = text.bytes();
  size_t begin = 0;
  for (std::string_view rest = bytes; !rest.empty();) {
    const size_t at = bytes.size() - rest.size();
    if (!is_blank(take_code_point(&rest))) continue;
    if (at > begin) add_part(text.slice(begin, at), &parts);
    begin = bytes.size() - rest.size();
  }
  if (begin < bytes.size()) add_part(text.slice(begin, bytes.size()), &parts);
  return parts;
}

std::vector<Text> split(const Text& text, std::string_view separator, int64_t most,
                        bool from_right) {
  const std::string_view bytes = text.bytes();
  std::vector<ByteRange> cuts;
  const auto wanted = [&] { return most < 0 || cuts.size() < static_cast<size_t>(most); };
  if (from_right) {
    for (size_t end = bytes.size(); wanted() && end >= separator.size();) {
      const size_t at = bytes.rfind(separator, end - separator.size());
      if (at == bytes.npos) break;
      cuts.push_back({at, at + separator.size()});
      end = at;
    }
    std::ranges::reverse(cuts);
  } else {
    for (size_t at = 0; wanted() && (at = bytes.find(separator, at)) != bytes.npos;) {
      cuts.push_back({at, at + separator.size()});
      at += separator.size();
    }
  }
  std::vector<Text> parts;
  size_t begin = 0;
  for (const ByteRange& cut : cuts) {
    add_part(text.slice(begin, cut.begin), &parts);
    begin = cut.end;
  }
  add_part(text.slice(begin, bytes.size()), &parts);
  return parts;
}

Text replaced(const Text& text, const Text& from, const Text& to, int64_t most) {
  Text out;
  if (from.bytes().empty()) {  // as Python: between all characters
    const auto offsets = character_offsets(text.bytes());
    for (size_t i = 0; i < offsets.size(); ++i) {
      if (most < 0 || static_cast<int64_t>(i) < most) out.append(to);
      if (i + 1 < offsets.size()) out.append(text.slice(offsets[i], offsets[i + 1]));
    }
    return out;
  }
  const std::string& bytes = text.bytes();
  size_t begin = 0;
  for (size_t at = 0; most != 0 && (at = bytes.find(from.bytes(), begin)) != bytes.npos; --most) {
    out.append(text.slice(begin, at));
    out.append(to);
    begin = at + from.bytes().size();
  }
  out.append(text.slice(begin, bytes.size()));
  return out;
}

}  // namespace dmc::text::chat
