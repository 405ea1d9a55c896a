// One text as clients see it: tokens in, whole characters out, ended by stop strings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/stop_strings.h"
#include "text/tokenizer.h"

namespace dmc::server {

class TextWriter {
 public:
  // `continues`: the text goes on behind one that is shown already. `tokenizer` must outlive it.
  TextWriter(const text::Tokenizer& tokenizer, bool skip_special, bool continues);

  void set_stops(std::vector<std::string> stops, bool keep);  // from here on

  // What may be shown now, in whole characters. Not after a stop string has come.
  std::string push(int32_t token);
  // The rest of a text that did not end with a stop string.
  std::string finish();
  const std::optional<std::string>& stop() const { return stops_.found(); }
  // Code points that came before the next token, held back or not.
  int64_t offset() const { return offset_; }

 private:
  const text::Tokenizer& tokenizer_;
  bool skip_special_;
  text::StreamDecoder decoder_;
  engine::StopStrings stops_{{}};
  int64_t offset_ = 0;
};

// A token's own text, for lists of tokens.
std::string token_text(const text::Tokenizer& tokenizer, int32_t token);

}  // namespace dmc::server
