// A tokenizer taken apart: what every file format is read into, and what text::Tokenizer runs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer/added_tokens.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/piece_model.h"
#include "text/tokenizer/splitter.h"
#include "text/tokenizer/vocabulary.h"

namespace dmc::text {

// Text -> (raw added tokens cut out) -> normalizers -> (other added tokens cut out) -> splitters
// -> model -> ids. And back: the bytes of each token, one after another.
struct Pipeline {
  std::string origin;  // the file, for messages
  AddedTokenFinder raw_tokens, normalized_tokens;
  std::vector<Normalizer> normalizers;
  std::vector<Splitter> splitters;
  std::unique_ptr<PieceModel> model;

  std::vector<std::string> bytes;       // of a token inside a text; "" for an id that no token has
  bool strip_first_space = false;       // a text's first space was put there by the tokenizer
  std::vector<int32_t> prefix, suffix;  // put around a whole prompt: BOS, EOS
  std::vector<AddedToken> added;

  // What all of the file's tokens may take together while it is read; `origin` is set before.
  Work& loading();

 private:
  std::unique_ptr<Work> loading_;
};

// Registers a token with the finder it belongs to. Error(kData) naming the file if it is too long.
void add_token(const AddedToken& token, Pipeline* pipeline);

// Readers, one a format; each throws Error(kData) naming the file. What it says of BOS and EOS and
// of the split pattern beside the formats' own rules comes from DIR/tokenizer_config.json.
Pipeline read_tokenizer_json(const std::filesystem::path& file);
// The same of what such a file holds; `origin` names it.
Pipeline read_tokenizer_json(const nlohmann::json& root, const std::string& origin);
Pipeline read_tokenizer_model(const std::filesystem::path& file);
Pipeline read_vocab_and_merges(const std::filesystem::path& vocab_json);

}  // namespace dmc::text
