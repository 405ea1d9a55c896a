#include "text/tokenizer/tokenizer_config.h"

#include <charconv>

#include "base/error.h"
#include "base/json.h"
#include "base/quoted.h"
#include "text/model_text.h"
#include "text/tokenizer/json_fields.h"
#include "text/tokenizer/vocabulary.h"

namespace dmc::text {
namespace {

using nlohmann::json;

std::optional<bool> optional_bool(const json& root, const char* key) {
  if (!root.contains(key) || root[key].is_null()) return std::nullopt;
  return root[key].get<bool>();
}

// A token is a string, or an object with its "content".
std::string token_text(const json& root, const char* key) {
  if (!root.contains(key) || root[key].is_null()) return "";
  return root[key].is_object() ? root[key].at("content").get<std::string>()
                               : root[key].get<std::string>();
}

int32_t parse_id(const std::string& text, const std::string& origin) {
  uint64_t id = Vocabulary::kMostTokens;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  if (error != std::errc() || end != text.data() + text.size() || id >= Vocabulary::kMostTokens) {
    throw data_error(origin + ": added_tokens_decoder has the key " + in_quotes(text) +
                     ", which is not a token id");
  }
  return static_cast<int32_t>(id);
}

TokenizerConfig read_keys(const json& root, const std::string& origin) {
  TokenizerConfig config;
  config.tokenizer_class = root.value("tokenizer_class", std::string());
  config.add_bos_token = optional_bool(root, "add_bos_token");
  config.add_eos_token = optional_bool(root, "add_eos_token");
  config.legacy = optional_bool(root, "legacy");
  config.bos_token = token_text(root, "bos_token");
  config.eos_token = token_text(root, "eos_token");
  config.unk_token = token_text(root, "unk_token");
  const json none = json::object();
  const json& added = root.contains("added_tokens_decoder") ? root["added_tokens_decoder"] : none;
  for (const auto& [id, entry] : added.items()) {
    config.added.push_back(read_added_token(entry, parse_id(id, origin)));
  }
  return config;
}

}  // namespace

TokenizerConfig read_tokenizer_config(const std::filesystem::path& model) {
  constexpr size_t kLargestFile = size_t{64} << 20;
  const std::optional<std::string> text =
      read_model_text(model, "tokenizer_config.json", kLargestFile);
  if (!text) return {};
  const std::string origin = model_text_origin(model, "tokenizer_config.json");
  const json root = parse_json(*text, origin);
  try {
    return read_keys(root, origin);
  } catch (const json::exception& error) {
    throw data_error(origin + ": a key is missing or has the wrong type (" +
                     printable(error.what(), 200) + ")");
  }
}

}  // namespace dmc::text
