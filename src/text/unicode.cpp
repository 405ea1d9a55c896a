#include "text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace dmc::text {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

CodePoints decomposed(std::string_view text, bool compatibility) {
  constexpr int kLongest = 32;  // the longest decomposition has 18
  const int options = UTF8PROC_DECOMPOSE | (compatibility ? UTF8PROC_COMPAT : 0);
  CodePoints out;
  out.reserve(text.size() + 1);
  while (!text.empty()) {
    std::array<utf8proc_int32_t, kLongest> parts;
    const auto c = static_cast<utf8proc_int32_t>(take_code_point(&text));
    const auto count = utf8proc_decompose_char(c, parts.data(), kLongest,
                                               static_cast<utf8proc_option_t>(options), nullptr);
    DMC_CHECK(count >= 0 && count <= kLongest);
    out.insert(out.end(), parts.begin(), parts.begin() + count);
  }
  return out;
}

// utf8proc's own reordering takes quadratic time on a long run of marks.
void reorder_marks(CodePoints& text) {
  for (auto begin = text.begin(); begin != text.end();) {
    begin = std::find_if(begin, text.end(), [](auto c) { return combining_class(c) != 0; });
    const auto end =
        std::find_if(begin, text.end(), [](auto c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end,
                     [](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

void compose(CodePoints& text) {
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto composed = utf8proc_normalize_utf32(text.data(), size, options);
  DMC_CHECK(composed >= 0 && composed <= size);
  text.resize(static_cast<size_t>(composed));
}

}  // namespace

std::string normalized(std::string_view text, NormalForm form) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::ranges::all_of(text, is_ascii)) return std::string(text);
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  CodePoints characters = decomposed(text, compatibility);
  reorder_marks(characters);
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) compose(characters);
  std::string out;
  out.reserve(text.size());
  for (auto c : characters) append_utf8(static_cast<char32_t>(c), &out);
  return out;
}

std::string lower_case(std::string_view text) {
  constexpr char32_t kDottedI = 0x130, kDotAbove = 0x307;  // the one that becomes two characters
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const char32_t c = take_code_point(&text);
    append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), &out);
    if (c == kDottedI) append_utf8(kDotAbove, &out);
  }
  return out;
}

std::string upper_case(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto c = static_cast<utf8proc_int32_t>(take_code_point(&text));
    append_utf8(static_cast<char32_t>(utf8proc_toupper(c)), &out);
  }
  return out;
}

size_t grapheme_length(std::string_view text) {
  std::string_view rest = text;
  utf8proc_int32_t state = 0;
  auto last = static_cast<utf8proc_int32_t>(take_code_point(&rest));
  while (!rest.empty()) {
    const size_t end = text.size() - rest.size();
    const auto next = static_cast<utf8proc_int32_t>(take_code_point(&rest));
    if (utf8proc_grapheme_break_stateful(last, next, &state)) return end;
    last = next;
  }
  return text.size();
}

bool is_white_space(char32_t c) {
  const auto kind = category(c);
  return (c >= '\t' && c <= '\r') || c == 0x85 || kind == UTF8PROC_CATEGORY_ZS ||
         kind == UTF8PROC_CATEGORY_ZL || kind == UTF8PROC_CATEGORY_ZP;
}

bool is_punctuation(char32_t c) {
  return category(c) >= UTF8PROC_CATEGORY_PC && category(c) <= UTF8PROC_CATEGORY_PO;
}

bool is_mark(char32_t c) {
  return category(c) >= UTF8PROC_CATEGORY_MN && category(c) <= UTF8PROC_CATEGORY_ME;
}

bool is_nonspacing_mark(char32_t c) { return category(c) == UTF8PROC_CATEGORY_MN; }

bool is_other(char32_t c) {
  return category(c) >= UTF8PROC_CATEGORY_CC && category(c) <= UTF8PROC_CATEGORY_CO;
}

bool is_word(char32_t c) {
  constexpr char32_t kNonJoiner = 0x200c, kJoiner = 0x200d;
  const auto kind = category(c);
  return c == kNonJoiner || c == kJoiner ||
         (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NL) ||
         kind == UTF8PROC_CATEGORY_PC;
}

}  // namespace dmc::text
