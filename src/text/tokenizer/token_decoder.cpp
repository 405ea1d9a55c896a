#include "text/tokenizer/token_decoder.h"

#include "base/error.h"
#include "base/quoted.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/normalizer.h"

namespace dmc::text {
namespace {

using nlohmann::json;
using Origin = const std::string&;

void byte_level(const json&, Origin, TokenDecoder* decoder) {
  decoder->steps.push_back([](std::string* token, Work&) {
    if (auto bytes = bytes_of_token(*token)) *token = std::move(*bytes);
  });
}

void byte_fallback(const json&, Origin, TokenDecoder* decoder) {
  decoder->steps.push_back([](std::string* token, Work&) {
    if (const auto byte = parse_byte_token(*token)) *token = std::string(1, *byte);
  });
}

void replace(const json& spec, Origin, TokenDecoder* decoder) {
  decoder->steps.push_back(
      [from = spec.at("pattern").at("String").get<std::string>(),
       to = spec.at("content").get<std::string>()](std::string* token, Work& work) {
        replace_all(from, to, work, token);
      });
}

void strip(const json& spec, Origin origin, TokenDecoder* decoder) {
  if (spec.at("content") != " " || spec.at("start") > 1 || spec.at("stop") != 0) {
    throw data_error(origin + ": decoder Strip other than of one leading space is not supported");
  }
  decoder->strip_first_space = spec["start"] == 1;
}

void metaspace(const json& spec, Origin, TokenDecoder* decoder) {
  decoder->steps.push_back(
      [mark = spec.value("replacement", std::string("▁"))](std::string* token, Work& work) {
        replace_all(mark, " ", work, token);
      });
  const bool older = spec.value("add_prefix_space", true);
  decoder->strip_first_space =
      spec.contains("prepend_scheme") ? spec["prepend_scheme"] != "never" : older;
}

// What BERT's users expect of a printed sentence.
void clean_up(Work& work, std::string* token) {
  constexpr std::pair<const char*, const char*> kRules[] = {
      {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
      {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) replace_all(from, to, work, token);
}

void word_piece(const json& spec, Origin, TokenDecoder* decoder) {
  const auto prefix = spec.value("prefix", std::string("##"));
  const bool cleanup = spec.value("cleanup", true);
  decoder->steps.push_back([=](std::string* token, Work& work) {
    const bool continues = token->starts_with(prefix);
    *token = continues ? token->substr(prefix.size()) : " " + *token;
    if (cleanup) clean_up(work, token);
  });
  decoder->strip_first_space = true;
}

struct Kind {
  const char* type;
  void (*add)(const json& spec, Origin, TokenDecoder*);
};

constexpr Kind kKinds[] = {
    {"ByteLevel", byte_level},
    {"ByteFallback", byte_fallback},
    {"Replace", replace},
    {"Strip", strip},
    {"Metaspace", metaspace},
    {"WordPiece", word_piece},
    {"Fuse", [](const json&, Origin, TokenDecoder*) {}},
};

void append(const json& spec, Origin origin, TokenDecoder* decoder) {
  const auto type = spec.at("type").get<std::string>();
  if (type == "Sequence") {
    for (const json& part : spec.at("decoders")) append(part, origin, decoder);
    require_few_steps(decoder->steps.size(), "decoders", origin);
    return;
  }
  for (const Kind& kind : kKinds) {
    if (type == kind.type) return kind.add(spec, origin, decoder);
  }
  throw data_error(origin + ": decoder " + in_quotes(type) + " is not supported");
}

}  // namespace

TokenDecoder read_token_decoder(const json& spec, const std::string& origin) {
  TokenDecoder decoder;
  if (spec.is_null()) {
    decoder.steps.push_back([](std::string* token, Work&) { token->insert(0, " "); });
    decoder.strip_first_space = true;
  } else {
    append(spec, origin, &decoder);
  }
  return decoder;
}

}  // namespace dmc::text
