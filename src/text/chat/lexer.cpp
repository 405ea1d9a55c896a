#include "text/chat/lexer.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>

#include "base/utf8.h"
#include "text/chat/text.h"

namespace dmc::text::chat {
namespace {

// Newlines become \n, and one at the very end goes.
std::string with_plain_newlines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool starts_name(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80) != 0;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_newlines(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) read_data_and_tag();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { throw SyntaxError{line_, message}; }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  bool at(std::string_view text) const {
    return std::string_view(source_).substr(position_).starts_with(text);
  }

  void advance(size_t count) {
    const auto begin = source_.begin() + static_cast<long>(position_);
    line_ += static_cast<size_t>(std::count(begin, begin + static_cast<long>(count), '\n'));
    position_ += count;
    line_starting_ = count > 0 ? source_[position_ - 1] == '\n' : line_starting_;
  }

  void skip_blanks() {
    std::string_view rest = std::string_view(source_).substr(position_);
    while (!rest.empty() && is_blank(take_code_point(&rest))) {
      advance(source_.size() - rest.size() - position_);
    }
  }

  void skip_newline() {
    if (at("\n")) advance(1);
  }

  size_t next_tag() const {
    size_t tag = position_;
    while ((tag = source_.find('{', tag)) != source_.npos) {
      const char next = tag + 1 < source_.size() ? source_[tag + 1] : '\0';
      if (next == '%' || next == '{' || next == '#') break;
      ++tag;
    }
    return std::min(tag, source_.size());
  }

  // The text before a tag at `tag`, as the tag's sign and the rules leave it.
  std::string data_before(size_t tag) const {
    std::string data = source_.substr(position_, tag - position_);
    if (tag == source_.size()) return data;
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') return stripped(Text(data), false, true, "").bytes();
    if (sign == '+' || source_[tag + 1] == '{') return data;
    const size_t line = data.rfind('\n') + 1;  // npos + 1 is 0
    const bool blank = stripped(Text(data.substr(line)), true, true, "").bytes().empty();
    if (blank && (line > 0 || line_starting_)) data.resize(line);
    return data;
  }

  void read_data_and_tag() {
    const size_t tag = next_tag();
    std::string data = data_before(tag);
    if (!data.empty()) add(TokenKind::kData, std::move(data));
    advance(tag - position_);
    if (position_ == source_.size()) return;
    const char kind = source_[position_ + 1];
    advance(2);
    if (at("-") || at("+")) advance(1);
    if (kind == '#') {
      read_comment();
    } else if (kind == '{') {
      read_expression(TokenKind::kVariableBegin, TokenKind::kVariableEnd, "}}");
    } else if (!read_raw()) {
      read_expression(TokenKind::kBlockBegin, TokenKind::kBlockEnd, "%}");
    }
  }

  void read_comment() {
    const size_t end = source_.find("#}", position_);
    if (end == source_.npos) fail("a comment is not closed by #}");
    const char sign = end > position_ ? source_[end - 1] : '\0';
    advance(end + 2 - position_);
    if (sign == '-') {
      skip_blanks();
    } else if (sign != '+') {
      skip_newline();
    }
  }

  // Where a tag that holds the word `name` alone begins to close; npos if this is another tag.
  size_t close_of_lone(std::string_view name, size_t from) const {
    const auto skip = [&] {
      while (from < source_.size() && std::isspace(static_cast<unsigned char>(source_[from])))
        ++from;
    };
    skip();
    if (!std::string_view(source_).substr(from).starts_with(name)) return source_.npos;
    from += name.size();
    skip();
    const std::string_view rest = std::string_view(source_).substr(from);
    const bool closes =
        rest.starts_with("%}") || rest.starts_with("-%}") || rest.starts_with("+%}");
    return closes ? from : source_.npos;
  }

  // After "{%": what stands between {% raw %} and {% endraw %} is data.
  bool read_raw() {
    const size_t close = close_of_lone("raw", position_);
    if (close == source_.npos) return false;
    advance(close - position_);
    const bool minus = at("-");
    advance(minus || at("+") ? 3 : 2);
    if (minus) skip_blanks();
    for (size_t tag = position_; (tag = source_.find("{%", tag)) != source_.npos; tag += 2) {
      const bool sign =
          tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+');
      const size_t end = close_of_lone("endraw", tag + (sign ? 3 : 2));
      if (end == source_.npos) continue;
      std::string data = data_before(tag);
      if (!data.empty()) add(TokenKind::kData, std::move(data));
      advance(end - position_);
      end_block();
      return true;
    }
    fail("{% raw %} is not closed by {% endraw %}");
  }

  // At the end of a block, one of %}, -%} and +%}.
  void end_block() {
    const bool minus = at("-"), plus = at("+");
    advance(minus || plus ? 3 : 2);
    if (minus) {
      skip_blanks();
    } else if (!plus) {
      skip_newline();
    }
  }

  void read_expression(TokenKind begin, TokenKind end, std::string_view closing) {
    const size_t opened = line_;
    add(begin, "");
    std::vector<char> brackets;
    while (true) {
      skip_blanks();
      if (position_ == source_.size()) {
        line_ = opened;
        fail("a tag is not closed by " + std::string(closing));
      }
      if (brackets.empty() && closes(closing)) {
        add(end, "");
        end_tag(closing);
        return;
      }
      read_token(&brackets);
    }
  }

  bool closes(std::string_view closing) const {
    const bool sign = at("-") || (at("+") && closing == "%}");
    return std::string_view(source_).substr(position_ + (sign ? 1 : 0)).starts_with(closing);
  }

  void end_tag(std::string_view closing) {
    if (closing == "%}") return end_block();
    const bool minus = at("-");
    advance(minus ? 3 : 2);
    if (minus) skip_blanks();
  }

  void read_token(std::vector<char>* brackets) {
    const char c = source_[position_];
    if (starts_name(c)) {
      read_name();
    } else if (is_digit(c)) {
      read_number();
    } else if (c == '"' || c == '\'') {
      read_string(c);
    } else {
      read_operator(brackets);
    }
  }

  void read_name() {
    size_t end = position_;
    while (end < source_.size() && (starts_name(source_[end]) || is_digit(source_[end]))) ++end;
    add(TokenKind::kName, source_.substr(position_, end - position_));
    advance(end - position_);
  }

  size_t skip_digits(size_t from, std::string* digits) const {
    while (from < source_.size() && (is_digit(source_[from]) || source_[from] == '_')) {
      if (source_[from] != '_') *digits += source_[from];
      ++from;
    }
    return from;
  }

  void read_number() {
    const auto digit_at = [&](size_t i) { return i < source_.size() && is_digit(source_[i]); };
    const auto is_at = [&](size_t i, std::string_view set) {
      return i < source_.size() && set.find(source_[i]) != set.npos;
    };
    const bool after_dot = !tokens_.empty() && tokens_.back().text == ".";
    std::string digits;
    bool real = false;
    size_t end = skip_digits(position_, &digits);
    if (!after_dot && is_at(end, ".") && digit_at(end + 1)) {
      digits += '.';
      end = skip_digits(end + 1, &digits);
      real = true;
    }
    const size_t exponent = is_at(end + 1, "+-") ? end + 2 : end + 1;
    if (!after_dot && is_at(end, "eE") && digit_at(exponent)) {
      digits += source_.substr(end, exponent - end);
      end = skip_digits(exponent, &digits);
      real = true;
    }
    add(real ? TokenKind::kFloat : TokenKind::kInteger, digits);
    advance(end - position_);
  }

  void read_string(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("a string is not closed");
    add(TokenKind::kString, unescaped(source_.substr(position_ + 1, end - position_ - 1)));
    advance(end + 1 - position_);
  }

  std::string unescaped(std::string_view literal) const {
    constexpr std::string_view kNames = "ntrbfav0\\'\"", kMeans("\n\t\r\b\f\a\v\0\\'\"", 11);
    std::string out;
    for (size_t i = 0; i < literal.size(); ++i) {
      if (literal[i] != '\\' || i + 1 == literal.size()) {
        out += literal[i];
        continue;
      }
      const char name = literal[++i];
      const size_t known = kNames.find(name);
      const size_t digits = name == 'x' ? 2 : name == 'u' ? 4 : name == 'U' ? 8 : 0;
      if (known != kNames.npos) {
        out += kMeans[known];
      } else if (digits > 0) {
        append_utf8(code_point(literal.substr(i + 1, digits), digits), &out);
        i += digits;
      } else if (name != '\n') {  // a backslash at the end of a line joins the lines
        out.append({'\\', name});
      }
    }
    return out;
  }

  char32_t code_point(std::string_view hex, size_t digits) const {
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), value, 16);
    const bool surrogate = value >= 0xd800 && value <= 0xdfff;
    if (hex.size() != digits || error != std::errc() || end != hex.data() + hex.size() ||
        value > 0x10ffff || surrogate) {
      fail("a string has an escape that is no character");
    }
    return value;
  }

  void read_operator(std::vector<char>* brackets) {
    constexpr std::array<std::string_view, 6> kDouble = {"//", "**", "==", "!=", ">=", "<="};
    constexpr std::string_view kSingle = "+-/*%~[](){}><=.:|,;";
    for (std::string_view two : kDouble) {
      if (!at(two)) continue;
      add(TokenKind::kOperator, std::string(two));
      return advance(2);
    }
    const char c = source_[position_];
    if (kSingle.find(c) == kSingle.npos) fail(std::string("unexpected character '") + c + "'");
    track(c, brackets);
    add(TokenKind::kOperator, std::string(1, c));
    advance(1);
  }

  // Inside of brackets }} ends dictionaries, not the tag.
  void track(char c, std::vector<char>* brackets) const {
    constexpr std::string_view kOpen = "([{", kClose = ")]}";
    if (const size_t open = kOpen.find(c); open != kOpen.npos) brackets->push_back(kClose[open]);
    if (kClose.find(c) == kClose.npos) return;
    if (brackets->empty() || brackets->back() != c) fail(std::string("unexpected '") + c + "'");
    brackets->pop_back();
  }

  const std::string source_;
  size_t position_ = 0, line_ = 1;
  bool line_starting_ = true;  // what was read last ended a line
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace dmc::text::chat
