// vocab.json and merges.txt, as GPT-2 and those after it came with.
#include <algorithm>
#include <sstream>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/quoted.h"
#include "base/utf8.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/byte_level_pipeline.h"
#include "text/tokenizer/json_fields.h"

namespace dmc::text {
namespace {

constexpr size_t kLargestFile = size_t{256} << 20;

Vocabulary read_vocabulary(const std::string& origin) {
  const nlohmann::json root = parse_json(read_text_file(origin, kLargestFile), origin);
  if (!root.is_object()) throw data_error(origin + " is not a JSON object of tokens and ids");
  Vocabulary vocabulary;
  for (const auto& [token, id] : root.items()) vocabulary.put(read_token_id(id, origin), token);
  return vocabulary;
}

// A line is two tokens with a space between; the first line may be a comment with the version.
MergeTable read_merges(const std::string& origin, const Vocabulary& printed) {
  std::istringstream lines(read_text_file(origin, kLargestFile));
  MergeTable merges;
  int32_t rank = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    const std::string left = line.substr(0, space);
    const std::string right = space == std::string::npos ? "" : line.substr(space + 1);
    const auto left_id = printed.find(left), right_id = printed.find(right);
    const auto result = printed.find(left + right);
    if (right.empty() || !left_id || !right_id || !result) {
      throw data_error(origin + ": merge " + in_quotes(line) +
                       " is not a pair of tokens of vocab.json that make another one");
    }
    merges.add(*left_id, *right_id, {rank++, *result});
  }
  return merges;
}

// Special tokens: those that tokenizer_config.json lists or names, and what ends GPT-2's texts.
void add_special_tokens(const TokenizerConfig& config, const Vocabulary& printed,
                        Pipeline* pipeline) {
  for (const AddedToken& token : config.added) add_spelled_token(token, pipeline);
  for (const std::string& text :
       {config.bos_token, config.eos_token, config.unk_token, std::string("<|endoftext|>")}) {
    const auto id = printed.find(text);
    if (id && !text.empty() &&
        std::ranges::find(pipeline->added, text, &AddedToken::text) == pipeline->added.end()) {
      add_spelled_token({.text = text, .id = *id, .special = true}, pipeline);
    }
  }
}

}  // namespace

Pipeline read_vocab_and_merges(const std::filesystem::path& vocab_json) {
  Pipeline pipeline;
  pipeline.origin = vocab_json.string();
  const TokenizerConfig config = read_tokenizer_config(vocab_json.parent_path());
  const Vocabulary printed = read_vocabulary(pipeline.origin);
  MergeTable merges = read_merges((vocab_json.parent_path() / "merges.txt").string(), printed);
  Vocabulary bytes;
  for (int32_t id = 0; id < printed.size(); ++id) {
    bytes.put(id, bytes_of_token(printed.text(id)).value_or(printed.text(id)));
  }
  build_byte_level(std::move(bytes), std::move(merges), {}, config, "GPT2Tokenizer", &pipeline);
  add_special_tokens(config, printed, &pipeline);
  add_bos_and_eos(config, &pipeline);
  return pipeline;
}

}  // namespace dmc::text
