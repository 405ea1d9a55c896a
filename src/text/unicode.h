// What normalizers and pre-tokenizers ask of Unicode (14, from utf8proc).
#pragma once

#include <string>
#include <string_view>

namespace dmc::text {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` (valid UTF-8) in this form, in O(n log n) even for one base with a million accents.
std::string normalized(std::string_view text, NormalForm form);

// The full lower case of each character by itself; the Greek final sigma gets no special treatment.
std::string lower_case(std::string_view text);
std::string upper_case(std::string_view text);  // "ß" stays as it is

// Bytes of the grapheme cluster (what a reader takes for one character) at the start of `text`,
// valid UTF-8 and not empty.
size_t grapheme_length(std::string_view text);

bool is_white_space(char32_t c);      // the property White_Space
bool is_punctuation(char32_t c);      // categories P*
bool is_mark(char32_t c);             // categories M*
bool is_nonspacing_mark(char32_t c);  // category Mn
bool is_other(char32_t c);            // controls, formats, surrogates, private use
bool is_word(char32_t c);             // \w: letters, marks, digits, connectors, joiners

}  // namespace dmc::text
