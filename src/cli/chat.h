// dmc run --chat: turns of a conversation, from a flag or from standard input.
#pragma once

#include <optional>
#include <string>

#include "cli/options.h"
#include "engine/generate.h"

namespace dmc::cli {

struct ChatOptions {
  std::string system;                  // message before the first, "" for none
  std::optional<std::string> message;  // the only one; else every line of standard input is one
  bool json = false;                   // an object for each reply instead of its text
};

// Returns the exit code. Error(kInvalidArgument) if the model has no chat template.
int chat(runtime::Runner& runner, const std::filesystem::path& model_dir,
         engine::GenerateOptions generate, const ChatOptions& options);

}  // namespace dmc::cli
