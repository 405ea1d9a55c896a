#include "text/tokenizer/normalizer.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/quoted.h"
#include "base/utf8.h"
#include "text/regex.h"
#include "text/tokenizer/base64.h"
#include "text/tokenizer/char_map.h"
#include "text/unicode.h"

namespace dmc::text {
namespace {

using nlohmann::json;
using Origin = const std::string&;

// `text` with each character c replaced by what fn(c, out) appends.
template <typename Fn>
std::string mapped(std::string_view text, Fn fn) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) fn(take_code_point(&text), &out);
  return out;
}

template <typename Predicate>
std::string without(std::string_view text, Predicate drop) {
  return mapped(text, [&](char32_t c, std::string* out) {
    if (!drop(c)) append_utf8(c, out);
  });
}

Normalizer form_normalizer(NormalForm form) {
  return [form](std::string* text, bool, Work&) { *text = normalized(*text, form); };
}

Normalizer prepend_normalizer(const json& spec, Origin) {
  return [prefix = spec.at("prepend").get<std::string>()](std::string* text, bool, Work& work) {
    work.charge(prefix.size());
    if (!text->empty()) text->insert(0, prefix);
  };
}

void replace_matches(const Regex& pattern, std::string_view to, Work& work, std::string* text) {
  std::string out;
  size_t end_of_last = 0;
  pattern.for_each_match(*text, work, [&](size_t begin, size_t end) {
    work.charge(to.size());
    out.append(*text, end_of_last, begin - end_of_last).append(to);
    end_of_last = end;
  });
  *text = out.append(*text, end_of_last);
}

Normalizer replace_normalizer(const json& spec, Origin origin) {
  const json& pattern = spec.at("pattern");
  const auto to = spec.at("content").get<std::string>();
  if (pattern.contains("Regex")) {
    const auto regex = std::make_shared<Regex>(pattern["Regex"].get<std::string>(), origin);
    return [regex, to](std::string* text, bool, Work& work) {
      replace_matches(*regex, to, work, text);
    };
  }
  return [from = pattern.at("String").get<std::string>(), to](std::string* text, bool, Work& work) {
    replace_all(from, to, work, text);
  };
}

Normalizer strip_normalizer(const json& spec, Origin) {
  const bool left = spec.value("strip_left", true), right = spec.value("strip_right", true);
  return [left, right](std::string* text, bool, Work&) {
    std::string_view rest = *text;
    size_t first = std::string::npos, last = 0;  // of what is not white space
    while (!rest.empty()) {
      const size_t at = text->size() - rest.size();
      if (is_white_space(take_code_point(&rest))) continue;
      if (first == std::string::npos) first = at;
      last = text->size() - rest.size();
    }
    const size_t begin = left ? std::min(first, text->size()) : 0;
    const size_t end = right ? std::max(last, begin) : text->size();
    *text = text->substr(begin, end - begin);
  };
}

// BERT's basic tokenizer (google-research/bert, tokenization.py) -----------------------------

void clean(char32_t c, std::string* out) {
  const bool plain_blank = c == '\t' || c == '\n' || c == '\r';  // other controls are dropped
  if (c == 0 || c == 0xfffd || (is_other(c) && !plain_blank)) return;
  append_utf8(is_white_space(c) ? U' ' : c, out);
}

bool is_ideograph(char32_t c) {
  constexpr char32_t kBlocks[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                     {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                     {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
  return std::ranges::any_of(kBlocks, [c](const auto& b) { return c >= b[0] && c <= b[1]; });
}

void space_around_ideographs(char32_t c, std::string* out) {
  if (!is_ideograph(c)) return append_utf8(c, out);
  *out += ' ';
  append_utf8(c, out);
  *out += ' ';
}

Normalizer bert_normalizer(const json& spec, Origin) {
  const bool clean_text = spec.value("clean_text", true);
  const bool ideographs = spec.value("handle_chinese_chars", true);
  const bool lower = spec.value("lowercase", true);
  const json accents = spec.value("strip_accents", json());
  const bool strip = accents.is_null() ? lower : accents.get<bool>();
  return [=](std::string* text, bool, Work&) {
    if (clean_text) *text = mapped(*text, clean);
    if (ideographs) *text = mapped(*text, space_around_ideographs);
    if (strip) *text = without(normalized(*text, NormalForm::kNfd), is_nonspacing_mark);
    if (lower) *text = lower_case(*text);
  };
}

// The table of a sentencepiece model. The library looks a short grapheme up as a whole, and what
// its shortest start is replaced by stands for all of it; else each character is looked up.
void replace_by_table(const CharMap& table, Work& work, std::string* text) {
  constexpr size_t kShortGrapheme = 6;  // bytes
  std::string out;
  for (std::string_view rest = *text; !rest.empty();) {
    std::string_view grapheme = rest.substr(0, grapheme_length(rest));
    rest.remove_prefix(grapheme.size());
    const bool is_short = grapheme.size() < kShortGrapheme;
    if (const auto to = is_short ? table.shortest_prefix(grapheme) : std::nullopt) {
      work.charge(to->size());
      out += *to;
      continue;
    }
    while (!grapheme.empty()) {
      const std::string_view character = grapheme.substr(0, utf8_sequence_length(grapheme));
      const std::string_view to = table.shortest_prefix(character).value_or(character);
      work.charge(to.size());
      out += to;
      grapheme.remove_prefix(character.size());
    }
  }
  *text = std::move(out);
}

Normalizer precompiled_normalizer(const json& spec, Origin origin) {
  const auto& encoded = spec.at("precompiled_charsmap").get_ref<const std::string&>();
  const std::string table = from_base64(encoded);
  if (table.empty() != encoded.empty()) {
    throw data_error(origin + ": precompiled_charsmap is not base64");
  }
  return [map = CharMap(table, origin)](std::string* text, bool, Work& work) {
    replace_by_table(map, work, text);
  };
}

struct Kind {
  const char* type;
  std::function<Normalizer(const json& spec, Origin)> make;
};

const Kind kKinds[] = {
    {"NFC", [](const json&, Origin) { return form_normalizer(NormalForm::kNfc); }},
    {"NFD", [](const json&, Origin) { return form_normalizer(NormalForm::kNfd); }},
    {"NFKC", [](const json&, Origin) { return form_normalizer(NormalForm::kNfkc); }},
    {"NFKD", [](const json&, Origin) { return form_normalizer(NormalForm::kNfkd); }},
    {"Lowercase",
     [](const json&, Origin) -> Normalizer {
       return [](std::string* text, bool, Work&) { *text = lower_case(*text); };
     }},
    {"StripAccents",
     [](const json&, Origin) -> Normalizer {
       return [](std::string* text, bool, Work&) { *text = without(*text, is_mark); };
     }},
    {"Prepend", prepend_normalizer},
    {"Replace", replace_normalizer},
    {"Strip", strip_normalizer},
    {"BertNormalizer", bert_normalizer},
    {"Precompiled", precompiled_normalizer},
};

}  // namespace

std::vector<Normalizer> read_normalizers(const json& spec, const std::string& origin) {
  const auto type = spec.at("type").get<std::string>();
  std::vector<Normalizer> normalizers;
  if (type == "Sequence") {
    for (const json& part : spec.at("normalizers")) {
      for (Normalizer& normalizer : read_normalizers(part, origin)) {
        normalizers.push_back(std::move(normalizer));
      }
      require_few_steps(normalizers.size(), "normalizers", origin);
    }
    return normalizers;
  }
  for (const Kind& kind : kKinds) {
    if (type == kind.type) return {kind.make(spec, origin)};
  }
  throw data_error(origin + ": normalizer " + in_quotes(type) + " is not supported");
}

void apply_normalizers(const std::vector<Normalizer>& normalizers, bool at_start, Work& work,
                       std::string* text) {
  for (const Normalizer& normalizer : normalizers) {
    normalizer(text, at_start, work);
    work.charge(text->size());
  }
}

void replace_all(std::string_view from, std::string_view to, Work& work, std::string* text) {
  if (from.empty()) return;
  std::string out;
  size_t position = 0;
  for (size_t at; (at = text->find(from, position)) != std::string::npos;) {
    work.charge(to.size());
    out.append(*text, position, at - position).append(to);
    position = at + from.size();
  }
  *text = out.append(*text, position);
}

}  // namespace dmc::text
