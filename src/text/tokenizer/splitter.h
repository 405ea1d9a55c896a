// Pre-tokenizers: where a text is cut into pieces that no token crosses.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "text/work.h"

namespace dmc::text {

struct Piece {
  std::string_view text;
  bool at_start = false;  // nothing of the whole text comes before it
};
using PieceSink = std::function<void(Piece)>;

// Gives the pieces of a piece to the sink, in order; their text need not outlive the call.
using Splitter = std::function<void(Piece, Work&, const PieceSink&)>;

// The split patterns that several vocabularies share.
extern const char* const kGpt2Pattern;
extern const char* const kLlama3Pattern;
extern const char* const kQwen2Pattern;

// Cuts `pattern`'s matches and what lies between them apart.
Splitter isolating_splitter(const std::string& pattern, const std::string& origin);

struct Splitters {
  std::vector<Splitter> steps;  // each is applied to the pieces of the one before
  bool bytes = false;           // then the model works on bytes (type ByteLevel)
};

// The "pre_tokenizer" object of a tokenizer.json. Error(kData) naming `origin` for a type or
// setting that is not supported, since leaving it out would change the ids.
Splitters read_splitters(const nlohmann::json& spec, const std::string& origin);

// The pieces left after all of `steps`; empty ones are dropped.
void split(const std::vector<Splitter>& steps, Piece piece, Work& work, const PieceSink& sink);

}  // namespace dmc::text
