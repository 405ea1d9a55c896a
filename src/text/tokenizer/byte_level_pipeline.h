// Byte-level BPE from files that give only a vocabulary: the rest follows from the model's class.
#pragma once

#include "text/tokenizer/bpe.h"
#include "text/tokenizer/pipeline.h"
#include "text/tokenizer/tokenizer_config.h"

namespace dmc::text {

// Fills in all but added tokens. `vocabulary` holds bytes; `default_class` says which split pattern
// is meant where tokenizer_config.json names no class. Error(kData) for a class that is not known.
void build_byte_level(Vocabulary vocabulary, MergeTable merges, BpeOptions options,
                      const TokenizerConfig& config, const std::string& default_class,
                      Pipeline* pipeline);

// Adds `token`, whose bytes are its text.
void add_spelled_token(const AddedToken& token, Pipeline* pipeline);

// BOS and EOS around a prompt if tokenizer_config.json asks for them.
void add_bos_and_eos(const TokenizerConfig& config, Pipeline* pipeline);

}  // namespace dmc::text
