// The two formats that a file named tokenizer.model can have.
#pragma once

#include <string_view>

#include "text/tokenizer/byte_level_pipeline.h"

namespace dmc::text {

// sentencepiece's protocol buffer, BPE or unigram. Fills in all of `pipeline` but its origin, which
// names the file for Error(kData).
void read_sentencepiece(std::string_view file, const TokenizerConfig& config, Pipeline* pipeline);

// tiktoken's lines "<base64 of the token's bytes> <rank>". Llama 3 came so.
void read_tiktoken(std::string_view file, const TokenizerConfig& config, Pipeline* pipeline);

}  // namespace dmc::text
