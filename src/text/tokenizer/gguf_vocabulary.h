// The tokenizer of a GGUF file (keys tokenizer.*), put into the words of the files that a Hugging
// Face directory has: tokenizer.json of a byte-level BPE ("gpt2"), tokenizer.model of a
// sentencepiece vocabulary ("llama"). What reads those does the rest.
#pragma once

#include <optional>
#include <string>

#include "base/gguf.h"
#include "text/tokenizer/pipeline.h"

namespace dmc::text {

// Error(kData) naming file and key for a vocabulary of another kind, a pre-tokenizer that is not
// known, or what is missing.
Pipeline read_gguf_vocabulary(const GgufFile& file);

// What the file `name` of a model directory would hold (text/model_text.h); nothing if the GGUF
// file does not say it.
std::optional<std::string> gguf_text(const GgufFile& file, const std::string& name);

}  // namespace dmc::text
