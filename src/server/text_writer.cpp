#include "server/text_writer.h"

#include <algorithm>

#include "base/utf8.h"

namespace dmc::server {
namespace {

int64_t code_points(std::string_view text) {
  return std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; });
}

}  // namespace

TextWriter::TextWriter(const text::Tokenizer& tokenizer, bool skip_special, bool continues)
    : tokenizer_(tokenizer), skip_special_(skip_special), decoder_(tokenizer, continues) {}

void TextWriter::set_stops(std::vector<std::string> stops, bool keep) {
  stops_ = engine::StopStrings(std::move(stops), keep);
}

std::string TextWriter::push(int32_t token) {
  if (skip_special_ && tokenizer_.is_special(token)) return "";
  const std::string text = decoder_.push(token);
  offset_ += code_points(text);
  return stops_.push(text);
}

std::string TextWriter::finish() {
  if (stop()) return "";
  const std::string text = stops_.push(decoder_.finish());
  return stop() ? text : text + stops_.finish();
}

std::string token_text(const text::Tokenizer& tokenizer, int32_t token) {
  return utf8_repaired(tokenizer.token_bytes(token));
}

}  // namespace dmc::server
