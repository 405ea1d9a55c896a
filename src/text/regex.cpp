#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/quoted.h"

namespace dmc::text {
namespace {

constexpr size_t kLongestPattern = 4096;

// Steps of one match. A run of blanks may be walked back once from end to start (`\s*[\r\n]+` on
// blanks only), so the limit grows with the text; what is exponential still meets it.
uint32_t match_limit(size_t text_size) {
  constexpr size_t kLeast = 1'000'000, kMost = 2'000'000'000, kPerByte = 4;
  return static_cast<uint32_t>(std::min(kLeast + kPerByte * std::min(text_size, kMost), kMost));
}

// PCRE2's \s has U+180E, which is no white space since Unicode 6.3; the libraries that wrote the
// patterns leave it out.
std::string with_unicode_space(const std::string& pattern) {
  constexpr std::string_view kSpace = R"(\t-\r\x{85}\p{Z})";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' || i + 1 == pattern.size()) {
      if (pattern[i] == '[') in_class = true;
      if (pattern[i] == ']') in_class = false;
      out += pattern[i];
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's') {
      out.append(in_class ? "" : "[").append(kSpace).append(in_class ? "" : "]");
    } else if (escaped == 'S' && !in_class) {
      out.append("[^").append(kSpace).append("]");
    } else {
      out.append({'\\', escaped});
    }
  }
  return out;
}

struct MatchState {
  pcre2_match_data* data;
  pcre2_match_context* context;
  MatchState(const pcre2_code* code, size_t text_size)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context, match_limit(text_size));
    pcre2_set_heap_limit(context, 64 * 1024);  // KiB
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;
};

}  // namespace

struct Regex::Impl {
  pcre2_code* code = nullptr;
  std::string origin;
  ~Impl() { pcre2_code_free(code); }
};

Regex::Regex(const std::string& pattern, const std::string& origin)
    : impl_(std::make_unique<Impl>()) {
  impl_->origin = origin;
  if (pattern.size() > kLongestPattern) {
    throw data_error(origin + ": a pattern of " + std::to_string(pattern.size()) +
                     " bytes is longer than the limit of " + std::to_string(kLongestPattern));
  }
  int code = 0;
  PCRE2_SIZE offset = 0;
  const std::string source = with_unicode_space(pattern);
  impl_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, nullptr);
  if (impl_->code == nullptr) {
    char message[128] = "";
    pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(message), sizeof message);
    throw data_error(origin + ": pattern " + in_quotes(pattern) + " is not valid: " + message);
  }
  pcre2_jit_compile(impl_->code, PCRE2_JIT_COMPLETE);  // without a JIT it is merely slower
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;

void Regex::for_each_match(std::string_view text, Work& work,
                           const std::function<void(size_t, size_t)>& fn) const {
  const MatchState state(impl_->code, text.size());
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(state.data);
  size_t position = 0;
  while (position < text.size()) {
    const auto match = [&](uint32_t options) {
      return pcre2_match(impl_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                         position, PCRE2_NO_UTF_CHECK | options, state.data, state.context);
    };
    int result = match(0);
    // The compiled matcher works on a small stack; the interpreter on the heap, up to its limit.
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    work.look_at_clock();
    if (result == PCRE2_ERROR_NOMATCH) return;
    if (result < 0) {
      throw data_error(impl_->origin +
                       ": its pattern needs too much work on this text (PCRE2 error " +
                       std::to_string(result) + ")");
    }
    if (range[1] == range[0]) {  // step over one character
      position = range[1] + 1;
      while (position < text.size() && (text[position] & 0xc0) == 0x80) ++position;
      continue;
    }
    fn(range[0], range[1]);
    position = range[1];
  }
}

std::string escape_regex(std::string_view literal) {
  std::string escaped;
  for (char c : literal) {
    if (static_cast<unsigned char>(c) < 0x80 && !std::isalnum(static_cast<unsigned char>(c))) {
      escaped += '\\';
    }
    escaped += c;
  }
  return escaped;
}

}  // namespace dmc::text
