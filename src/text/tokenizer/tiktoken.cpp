#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "text/tokenizer/base64.h"
#include "text/tokenizer/tokenizer_model.h"

namespace dmc::text {
namespace {

constexpr size_t kLongestToken = 512;

Vocabulary read_ranks(std::string_view file, const std::string& origin) {
  Vocabulary vocabulary;
  for (size_t line_number = 1; !file.empty(); ++line_number) {
    const size_t end = std::min(file.find('\n'), file.size());
    std::string_view line = file.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    file.remove_prefix(std::min(end + 1, file.size()));
    if (line.empty()) continue;
    const size_t space = std::min(line.find(' '), line.size());
    const std::string bytes = from_base64(line.substr(0, space));
    const std::string_view digits = line.substr(std::min(space + 1, line.size()));
    uint64_t rank = Vocabulary::kMostTokens;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    if (bytes.empty() || bytes.size() > kLongestToken || error != std::errc() ||
        stop != digits.data() + digits.size() || rank >= Vocabulary::kMostTokens) {
      throw data_error(origin + ": line " + std::to_string(line_number) +
                       " is neither sentencepiece nor a base64 token and its rank");
    }
    vocabulary.put(static_cast<int32_t>(rank), bytes);
  }
  if (vocabulary.size() == 0) throw data_error(origin + " is empty");
  return vocabulary;
}

// What Meta's own code adds to Llama 3's file, which holds no special tokens.
std::vector<AddedToken> llama3_special_tokens(int32_t first) {
  constexpr const char* kNames[] = {
      "<|begin_of_text|>",   "<|end_of_text|>",   nullptr, nullptr,     nullptr, nullptr,
      "<|start_header_id|>", "<|end_header_id|>", nullptr, "<|eot_id|>"};
  constexpr int32_t kCount = 256;
  std::vector<AddedToken> tokens;
  int reserved = 0;
  for (int32_t i = 0; i < kCount; ++i) {
    const bool named = i < static_cast<int32_t>(std::size(kNames)) && kNames[i] != nullptr;
    tokens.push_back({.text = named
                                  ? kNames[i]
                                  : "<|reserved_special_token_" + std::to_string(reserved++) + "|>",
                      .id = first + i,
                      .special = true});
  }
  return tokens;
}

}  // namespace

void read_tiktoken(std::string_view file, const TokenizerConfig& config, Pipeline* pipeline) {
  Vocabulary vocabulary = read_ranks(file, pipeline->origin);
  MergeTable merges = merges_of_vocabulary(
      vocabulary, [](int32_t) { return true; }, [](int32_t id) { return id; });
  const int32_t size = vocabulary.size();
  build_byte_level(std::move(vocabulary), std::move(merges), {.ignore_merges = true}, config,
                   "Llama3Tokenizer", pipeline);
  TokenizerConfig complete = config;
  constexpr int32_t kLlama3Size = 128000;
  if (config.added.empty() && size == kLlama3Size) {
    complete.added = llama3_special_tokens(size);
    complete.bos_token = complete.added[0].text;
    complete.add_bos_token = config.add_bos_token.value_or(true);
  }
  for (const AddedToken& token : complete.added) add_spelled_token(token, pipeline);
  add_bos_and_eos(complete, pipeline);
}

}  // namespace dmc::text
