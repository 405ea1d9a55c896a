#include "text/tokenizer/byte_level_pipeline.h"

#include <algorithm>

#include "base/error.h"
#include "base/quoted.h"
#include "text/unicode.h"

namespace dmc::text {
namespace {

struct KnownClass {
  const char* name;  // of transformers' tokenizer class, without "Fast"
  const char* const* pattern;
  bool nfc;
};
constexpr KnownClass kClasses[] = {
    {"GPT2Tokenizer", &kGpt2Pattern, false},     {"CodeGenTokenizer", &kGpt2Pattern, false},
    {"GPTNeoXTokenizer", &kGpt2Pattern, false},  {"RobertaTokenizer", &kGpt2Pattern, false},
    {"Llama3Tokenizer", &kLlama3Pattern, false}, {"Qwen2Tokenizer", &kQwen2Pattern, true},
    {"QWenTokenizer", &kQwen2Pattern, true},
};

const KnownClass& class_of(const TokenizerConfig& config, const std::string& default_class,
                           const std::string& origin) {
  std::string name = config.tokenizer_class.empty() ? default_class : config.tokenizer_class;
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  if (name == "PreTrainedTokenizer") name = default_class;  // says nothing
  const auto* found =
      std::ranges::find_if(kClasses, [&](const KnownClass& known) { return name == known.name; });
  if (found == std::end(kClasses)) {
    throw data_error(origin + ": how " + in_quotes(name) +
                     " splits a text is not known (tokenizer_config" +
                     ".json); convert the tokenizer to tokenizer.json");
  }
  return *found;
}

}  // namespace

void build_byte_level(Vocabulary vocabulary, MergeTable merges, BpeOptions options,
                      const TokenizerConfig& config, const std::string& default_class,
                      Pipeline* pipeline) {
  const KnownClass& known = class_of(config, default_class, pipeline->origin);
  if (known.nfc) {
    pipeline->normalizers.push_back(
        [](std::string* text, bool, Work&) { *text = normalized(*text, NormalForm::kNfc); });
  }
  pipeline->splitters = {isolating_splitter(*known.pattern, pipeline->origin)};
  for (int32_t id = 0; id < vocabulary.size(); ++id) pipeline->bytes.push_back(vocabulary.text(id));
  options.bytes = true;
  pipeline->model = std::make_unique<BpeModel>(std::move(vocabulary), std::move(merges), options);
}

void add_spelled_token(const AddedToken& token, Pipeline* pipeline) {
  const auto index = static_cast<size_t>(token.id);
  if (index >= pipeline->bytes.size()) pipeline->bytes.resize(index + 1);
  pipeline->bytes[index] = token.text;
  add_token(token, pipeline);
}

void add_bos_and_eos(const TokenizerConfig& config, Pipeline* pipeline) {
  const auto id_of = [&](const std::string& text, const char* key) {
    const auto found = std::ranges::find(pipeline->added, text, &AddedToken::text);
    if (found != pipeline->added.end()) return found->id;
    throw data_error(pipeline->origin + ": tokenizer_config.json wants " + key + " " +
                     in_quotes(text) + " around a text, which is no special token");
  };
  if (config.add_bos_token.value_or(false)) {
    pipeline->prefix = {id_of(config.bos_token, "bos_token")};
  }
  if (config.add_eos_token.value_or(false)) {
    pipeline->suffix = {id_of(config.eos_token, "eos_token")};
  }
}

}  // namespace dmc::text
