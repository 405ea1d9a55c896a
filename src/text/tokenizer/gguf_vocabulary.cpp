#include "text/tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/join.h"
#include "base/named.h"
#include "base/quoted.h"
#include "base/utf8.h"
#include "text/tokenizer/protobuf.h"
#include "text/tokenizer/splitter.h"
#include "text/tokenizer/tokenizer_model.h"
#include "text/tokenizer/vocabulary.h"

namespace dmc::text {
namespace {

using nlohmann::json;

// Types of tokens: sentencepiece's.
constexpr int kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

const char* const kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// How a byte-level vocabulary cuts a text into words; files name it by a model that had it first.
struct PreTokenizer {
  std::string_view name;
  std::vector<const char*> patterns;  // one after the other
  bool nfc = false;
  bool ignore_merges = false;  // a word that is a token is taken at once
  bool bos = false;            // begins a text where the file does not say whether to
};

const std::vector<PreTokenizer>& pre_tokenizers() {
  const std::vector<const char*> digits = {R"(\p{N})", kGpt2Pattern};
  static const std::vector<PreTokenizer> kTable = {
      {"gpt-2", {kGpt2Pattern}},
      {"smollm", digits},
      {"starcoder", digits},
      {"refact", digits},
      {"command-r", digits},
      {"llama-bpe", {kLlama3Pattern}, false, true, true},
      {"llama3", {kLlama3Pattern}, false, true, true},
      {"llama-v3", {kLlama3Pattern}, false, true, true},
      {"falcon3", {kLlama3Pattern}, false, true, true},
      {"pixtral", {kLlama3Pattern}, false, true, true},
      {"smaug-bpe", {kLlama3Pattern}},
      {"dbrx", {kLlama3Pattern}},
      {"tekken", {kTekkenPattern}, false, true, true},
      {"qwen2", {kQwen2Pattern}, true},
      {"deepseek-r1-qwen", {kQwen2Pattern}, true},
      {"megrez", {kQwen2Pattern}, true},
      // What llama.cpp does where a file says nothing.
      {"default",
       {R"([\p{P}\$\+<=>\^~\|]+)",
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))", R"(\p{N}+)",
        R"([0-9][0-9][0-9])"}},
  };
  return kTable;
}

std::string checked_text(const GgufFile& file, const char* key, std::string_view text) {
  if (utf8_is_valid(text)) return std::string(text);
  throw file.wrong(key, "valid UTF-8 in all entries");
}

// What the file says of its tokens, checked.
class GgufTokens {
 public:
  static constexpr const char* kTokens = "tokenizer.ggml.tokens";

  explicit GgufTokens(const GgufFile& file) : file_(file), tokens_(file.texts(kTokens)) {
    if (tokens_.empty() || tokens_.size() > Vocabulary::kMostTokens) {
      throw file.wrong(kTokens, "1 to " + std::to_string(Vocabulary::kMostTokens) + " tokens");
    }
    types_ = of_each_token("tokenizer.ggml.token_type", kNormal);
    scores_ = of_each_token("tokenizer.ggml.scores", 0);
  }

  std::string kind() const { return file_.text("tokenizer.ggml.model"); }
  size_t size() const { return tokens_.size(); }
  // Without the fillers at its end, which make the model's matrices a round size.
  size_t size_without_fillers() const {
    size_t size = tokens_.size();
    while (size > 1 && type(size - 1) == kUnused) --size;
    return size;
  }
  std::string token(size_t id) const { return checked_text(file_, kTokens, tokens_[id]); }
  int type(size_t id) const { return static_cast<int>(types_[id]); }
  float score(size_t id) const { return static_cast<float>(scores_[id]); }

  // The token that has this part ("bos": tokenizer.ggml.bos_token_id).
  std::optional<size_t> role(const std::string& name) const {
    const std::string key = "tokenizer.ggml." + name + "_token_id";
    if (!file_.has(key)) return std::nullopt;
    return static_cast<size_t>(file_.size(key, 0, static_cast<int64_t>(size()) - 1));
  }
  bool flag(const std::string& name, bool otherwise) const {
    const std::string key = "tokenizer.ggml." + name;
    return file_.has(key) ? file_.boolean(key) : otherwise;
  }

  // Of a vocabulary in which bytes merge.
  const PreTokenizer& pre_tokenizer() const {
    constexpr const char* kKey = "tokenizer.ggml.pre";
    const std::string name = file_.has(kKey) ? file_.text(kKey) : "default";
    if (const PreTokenizer* const found = find_named(pre_tokenizers(), name)) return *found;
    throw file_.wrong(kKey, "one of " + join(pre_tokenizers(), ", ", &PreTokenizer::name) +
                                ", found " + in_quotes(name));
  }

 private:
  std::vector<double> of_each_token(const char* key, double otherwise) const {
    if (!file_.has(key)) return std::vector<double>(size(), otherwise);
    std::vector<double> list = file_.numbers(key);
    const auto usable = [](double x) { return std::abs(x) <= 1e30; };
    if (list.size() != size() || !std::ranges::all_of(list, usable)) {
      throw file_.wrong(key, "a number for each of the " + std::to_string(size()) + " tokens");
    }
    return list;
  }

  const GgufFile& file_;
  std::vector<std::string_view> tokens_;
  std::vector<double> types_, scores_;
};

bool adds_bos(const GgufTokens& vocabulary) {
  const bool pieces = vocabulary.kind() == "llama";
  return vocabulary.flag("add_bos_token", pieces || vocabulary.pre_tokenizer().bos);
}

json pre_tokenizer_json(const PreTokenizer& pre) {
  json steps = json::array();
  for (const char* pattern : pre.patterns) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", pattern}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

json post_processor_json(const GgufTokens& vocabulary) {
  json single = json::array(), tokens = json::object();
  const auto add = [&](const std::optional<size_t>& id) {
    if (!id) return;
    const std::string text = vocabulary.token(*id);
    single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
    tokens[text] = {{"id", text}, {"ids", {*id}}, {"tokens", {text}}};
  };
  if (adds_bos(vocabulary)) add(vocabulary.role("bos"));
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  if (vocabulary.flag("add_eos_token", false)) add(vocabulary.role("eos"));
  json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

json added_tokens_json(const GgufTokens& vocabulary) {
  json added = json::array();
  for (size_t id = 0; id < vocabulary.size_without_fillers(); ++id) {
    const int type = vocabulary.type(id);
    if (type != kControl && type != kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", vocabulary.token(id)},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type == kControl}});
  }
  return added;
}

json tokenizer_json(const GgufFile& file, const GgufTokens& vocabulary) {
  const PreTokenizer& pre = vocabulary.pre_tokenizer();
  json vocab = json::object(), merges = json::array();
  for (size_t id = 0; id < vocabulary.size_without_fillers(); ++id) {
    vocab.emplace(vocabulary.token(id), id);
  }
  constexpr const char* kMerges = "tokenizer.ggml.merges";
  for (std::string_view merge : file.texts(kMerges)) {
    merges.push_back(checked_text(file, kMerges, merge));
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens_json(vocabulary)},
          {"normalizer", pre.nfc ? json{{"type", "NFC"}} : json()},
          {"pre_tokenizer", pre_tokenizer_json(pre)},
          {"post_processor", post_processor_json(vocabulary)},
          {"decoder",
           {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", pre.ignore_merges},
            {"vocab", std::move(vocab)},
            {"merges", std::move(merges)}}}};
}

// The numbers are fields of sentencepiece_model.proto.
std::string tokenizer_model(const GgufTokens& vocabulary) {
  constexpr uint64_t kBpe = 2, kNone = UINT64_MAX;  // -1
  ProtobufWriter model;
  for (size_t id = 0; id < vocabulary.size(); ++id) {
    ProtobufWriter piece;
    piece.bytes(1, vocabulary.token(id));
    piece.real(2, vocabulary.score(id));
    piece.integer(3, static_cast<uint64_t>(std::max(vocabulary.type(id), kNormal)));
    model.bytes(1, piece.message());
  }
  const auto id_or_none = [&](const char* role) { return vocabulary.role(role).value_or(kNone); };
  ProtobufWriter trainer;
  trainer.integer(3, kBpe);
  trainer.integer(35, 1);  // byte_fallback
  trainer.integer(40, vocabulary.role("unknown").value_or(0));
  trainer.integer(41, id_or_none("bos"));
  trainer.integer(42, id_or_none("eos"));
  trainer.integer(43, id_or_none("padding"));
  model.bytes(2, trainer.message());
  ProtobufWriter normalizer;
  normalizer.bytes(1, "identity");
  normalizer.integer(3, vocabulary.flag("add_space_prefix", true));
  normalizer.integer(4, vocabulary.flag("remove_extra_whitespaces", false));
  normalizer.integer(5, 1);  // escape_whitespaces
  model.bytes(3, normalizer.message());
  return model.message();
}

std::optional<std::string> tokenizer_json_text(const GgufFile& file) {
  const GgufTokens vocabulary(file);
  if (vocabulary.kind() != "gpt2") return std::nullopt;
  return tokenizer_json(file, vocabulary).dump();
}

std::optional<std::string> tokenizer_model_text(const GgufFile& file) {
  const GgufTokens vocabulary(file);
  if (vocabulary.kind() != "llama") return std::nullopt;
  return tokenizer_model(vocabulary);
}

std::optional<std::string> tokenizer_config_text(const GgufFile& file) {
  const GgufTokens vocabulary(file);
  const bool pieces = vocabulary.kind() == "llama";
  nlohmann::ordered_json config = {
      {"tokenizer_class", pieces ? "LlamaTokenizer" : "PreTrainedTokenizerFast"},
      {"add_bos_token", adds_bos(vocabulary)},
      {"add_eos_token", vocabulary.flag("add_eos_token", false)},
      {"clean_up_tokenization_spaces", false}};
  if (pieces) config["legacy"] = false;
  constexpr std::pair<const char*, const char*> kRoles[] = {{"bos_token", "bos"},
                                                            {"eos_token", "eos"},
                                                            {"unk_token", "unknown"},
                                                            {"pad_token", "padding"}};
  for (const auto& [key, role] : kRoles) {
    if (const auto id = vocabulary.role(role)) config[key] = vocabulary.token(*id);
  }
  return config.dump(2) + "\n";
}

// Tokens that end a reply: the end of a text, of a turn, of a message to a tool.
std::optional<std::string> generation_config_text(const GgufFile& file) {
  const GgufTokens vocabulary(file);
  std::vector<size_t> ends;
  for (const char* role : {"eos", "eot", "eom"}) {
    const auto id = vocabulary.role(role);
    if (id && std::ranges::find(ends, *id) == ends.end()) ends.push_back(*id);
  }
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  if (const auto bos = vocabulary.role("bos")) config["bos_token_id"] = *bos;
  if (!ends.empty()) config["eos_token_id"] = ends;
  return config.dump(2) + "\n";
}

std::optional<std::string> chat_template_text(const GgufFile& file) {
  constexpr const char* kKey = "tokenizer.chat_template";
  if (!file.has(kKey)) return std::nullopt;
  return file.text(kKey);
}

struct TextFile {
  std::string_view name;
  std::optional<std::string> (*make)(const GgufFile&);
};
constexpr TextFile kFiles[] = {{"tokenizer.json", tokenizer_json_text},
                               {"tokenizer.model", tokenizer_model_text},
                               {"tokenizer_config.json", tokenizer_config_text},
                               {"generation_config.json", generation_config_text},
                               {"chat_template.jinja", chat_template_text}};

}  // namespace

Pipeline read_gguf_vocabulary(const GgufFile& file) {
  const GgufTokens vocabulary(file);
  const std::string kind = vocabulary.kind();
  if (kind == "gpt2") return read_tokenizer_json(tokenizer_json(file, vocabulary), file.origin());
  if (kind != "llama") throw file.wrong("tokenizer.ggml.model", "\"gpt2\" or \"llama\"");
  Pipeline pipeline;
  pipeline.origin = file.origin();
  TokenizerConfig config;
  config.legacy = false;
  config.add_bos_token = adds_bos(vocabulary);
  config.add_eos_token = vocabulary.flag("add_eos_token", false);
  read_sentencepiece(tokenizer_model(vocabulary), config, &pipeline);
  return pipeline;
}

std::optional<std::string> gguf_text(const GgufFile& file, const std::string& name) {
  const TextFile* const found = find_named(kFiles, name);
  return found == nullptr ? std::nullopt : found->make(file);
}

}  // namespace dmc::text
