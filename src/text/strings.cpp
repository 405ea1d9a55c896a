#include "text/strings.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace dmc::text {
namespace {

constexpr std::string_view kSpaces[] = {" ",      "\t",     "\n",     "\v",     "\f",     "\r",
                                        "\x1c",   "\x1d",   "\x1e",   "\x1f",   "\u0085", "\u00a0",
                                        "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004",
                                        "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200a",
                                        "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};

}  // namespace

std::string_view right_stripped(std::string_view text) {
  const auto is_at_end = [&](std::string_view space) { return text.ends_with(space); };
  for (auto it = std::ranges::find_if(kSpaces, is_at_end); it != std::end(kSpaces);
       it = std::ranges::find_if(kSpaces, is_at_end)) {
    text.remove_suffix(it->size());
  }
  return text;
}

std::string_view stripped(std::string_view text) {
  const auto is_at_start = [&](std::string_view space) { return text.starts_with(space); };
  for (auto it = std::ranges::find_if(kSpaces, is_at_start); it != std::end(kSpaces);
       it = std::ranges::find_if(kSpaces, is_at_start)) {
    text.remove_prefix(it->size());
  }
  return right_stripped(text);
}

int64_t count_characters(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; });
}

std::string capitalized(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (!result.empty() && result[0] >= 'a' && result[0] <= 'z') {
    result[0] = static_cast<char>(result[0] - 'a' + 'A');
  }
  return result;
}

std::string replace_all(std::string_view text, std::string_view what, std::string_view with) {
  std::string result;
  for (size_t at = text.find(what); at != std::string_view::npos; at = text.find(what)) {
    result.append(text.substr(0, at)).append(with);
    text.remove_prefix(at + what.size());
  }
  return result.append(text);
}

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace dmc::text
