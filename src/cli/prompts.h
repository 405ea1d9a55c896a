// Texts that the scheduler writes: many prompts at once, and what only it can do with one
// (penalties, stop strings).
#pragma once

#include <CLI/CLI.hpp>

#include <filesystem>
#include <functional>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/request.h"
#include "runtime/placed_model.h"
#include "text/tokenizer.h"

namespace dmc::cli {

struct PromptOptions {
  engine::LogitRules rules;
  std::vector<std::string> stop;  // strings that end a text, and are no part of it
  std::filesystem::path prompts;  // a file of prompts; empty: the one of --prompt or --file

  bool needed() const { return !rules.neutral() || !stop.empty() || !prompts.empty(); }
};

void add_prompt_options(CLI::App& app, PromptOptions& options);

// Bytes that a prompt may have: 16 for each token of the context, several times what texts have.
// What is longer is refused before it is cut into tokens, which takes many times its memory.
size_t most_prompt_bytes(const engine::ModelRunner& runner);
// Error(kInvalidArgument) for a longer one.
void require_prompt_fits(std::string_view prompt, const engine::ModelRunner& runner);
// At most `most` bytes of what comes.
std::string read_stream(std::istream& in, size_t most);

// The prompts of a .jsonl file: each line an object with a "prompt", or a string. Error(kData)
// naming the line.
std::vector<std::string> read_prompts(const std::filesystem::path& file);

// A prompt's continuation.
struct Written {
  std::string text;
  std::string finish_reason;  // "stop" or "length"
  int64_t prompt_tokens = 0, tokens = 0;
  double compression_ratio = 1.0;
};

// Continues all `prompts` at once, as far as there is room. `show`, which may be empty, hears of
// each piece of text with its prompt's index. Error of the first one that cannot be served. Nothing
// once `interrupted` says so.
std::vector<Written> write_texts(runtime::Runner& runner, const text::Tokenizer& tokenizer,
                                 const std::vector<std::string>& prompts,
                                 const engine::RequestOptions& options,
                                 const std::vector<std::string>& stop,
                                 const std::function<void(size_t, const std::string&)>& show,
                                 const std::function<bool()>& interrupted);

inline constexpr int kTextsAtOnce = 16;

}  // namespace dmc::cli
