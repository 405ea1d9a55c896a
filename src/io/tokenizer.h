// Text to token ids and back, from a Hugging Face tokenizer.json (byte-level BPE).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dmc::io {

class Tokenizer {
 public:
  // Reads DIR/tokenizer.json; Error(kData) naming the file for what is missing or not supported.
  explicit Tokenizer(const std::filesystem::path& dir);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;

  // Invalid UTF-8 is replaced by U+FFFD. Special tokens in `text` are recognised only if asked.
  // Time is O(n log n) in the text's length, whatever the text. Safe to call from many threads.
  std::vector<int32_t> encode(std::string_view text, bool parse_special = false) const;

  // The bytes of a token (a special token's text); an id out of range gives "".
  std::string_view token_bytes(int32_t id) const;
  std::string decode(std::span<const int32_t> ids) const;  // invalid UTF-8 becomes U+FFFD

  int64_t vocab_size() const;                                     // largest id + 1
  std::optional<int32_t> token_id(std::string_view token) const;  // of a special token, by its text

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Text of a token stream as it comes, never cutting a UTF-8 sequence: bytes of an unfinished
// character are held back until it is complete; finish() gives what is left as U+FFFD.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;
};

}  // namespace dmc::io
