// Text to token ids and back, for the tokenizer files that published models come with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/byte_range.h"

namespace dmc::text {

struct Pipeline;

class Tokenizer {
 public:
  // Reads the vocabulary of a GGUF file, or the first of these that is in a model directory:
  // tokenizer.json, tokenizer.model (sentencepiece or tiktoken), vocab.json with merges.txt.
  // Error(kData) naming the file for what is missing or not supported, and where ids reach
  // `ids_of_model`, the rows of the model's embedding: it would be asked for rows that it has not.
  explicit Tokenizer(const std::filesystem::path& model,
                     int64_t ids_of_model = std::numeric_limits<int64_t>::max());
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  // Invalid UTF-8 is replaced by U+FFFD. Special tokens in `text` are recognised only if asked.
  // Nothing is put around the text. Time is O(n log n) in the text's length, whatever the text.
  // Safe to call from many threads.
  std::vector<int32_t> encode(std::string_view text, bool parse_special = false) const;

  // As encode() with special tokens recognised, except where they touch one of `untrusted` (byte
  // ranges of `text`, ascending): there "<|im_end|>" is text like any other. `text` is valid UTF-8.
  std::vector<int32_t> encode_marked(std::string_view text,
                                     std::span<const ByteRange> untrusted) const;

  // As encode() with special tokens recognised, between what the model wants around a prompt (BOS,
  // EOS), as the post-processor or add_bos_token say.
  std::vector<int32_t> encode_prompt(std::string_view text) const;

  // The bytes of a token inside a text (a special token's text); an id out of range gives "".
  std::string_view token_bytes(int32_t id) const;
  // Invalid UTF-8 becomes U+FFFD. A first space that encode() would have added is dropped.
  std::string decode(std::span<const int32_t> ids) const;
  bool strips_first_space() const;

  int64_t vocab_size() const;                                     // largest id + 1
  std::optional<int32_t> token_id(std::string_view token) const;  // of an added token, by its text
  bool is_special(int32_t id) const;                              // a control token
  std::optional<int32_t> unknown_id() const;  // what encode() makes of a text it has no token for

 private:
  std::unique_ptr<Pipeline> pipeline_;
};

// Text of a token stream as it comes, never cutting a UTF-8 sequence: bytes of an unfinished
// character are held back until it is complete; finish() gives what is left as U+FFFD.
class StreamDecoder {
 public:
  // `continues`: the tokens follow a text shown already, so that their first space is meant.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool continues = false)
      : tokenizer_(tokenizer), strip_space_(tokenizer.strips_first_space() && !continues) {}
  std::string push(int32_t id);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  bool strip_space_;  // until the first byte
  std::string pending_;
};

}  // namespace dmc::text
