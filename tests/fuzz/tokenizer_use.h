// What is done with a tokenizer whose file was accepted.
#pragma once

#include "base/utf8.h"
#include "text/tokenizer.h"

namespace dmc::fuzz {

// Encodes and decodes; what comes out are ids of the vocabulary and valid UTF-8.
inline void use(const text::Tokenizer& tokenizer) {
  constexpr const char* kTexts[] = {"", "the cat", "  a\n\n1234 é 日本 \xff <s>[MASK]<|eot|>",
                                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  for (const char* text : kTexts) {
    const auto ids = tokenizer.encode_prompt(text);
    tokenizer.encode(text);
    for (int32_t id : ids) DMC_CHECK(id >= 0);
    DMC_CHECK(dmc::utf8_is_valid(tokenizer.decode(ids)));
    text::StreamDecoder decoder(tokenizer);
    std::string streamed;
    for (int32_t id : ids) streamed += decoder.push(id);
    DMC_CHECK(dmc::utf8_is_valid(streamed + decoder.finish()));
  }
}

}  // namespace dmc::fuzz
