#include "cli/chat.h"

#include <unistd.h>

#include <iostream>

#include "base/error.h"
#include "cli/interrupt.h"
#include "cli/run_statistics.h"
#include "engine/conversation.h"
#include "text/generation_config.h"

namespace dmc::cli {
namespace {

text::ChatTemplate require_template(const std::filesystem::path& dir) {
  auto found = text::ChatTemplate::find(dir);
  if (found) return std::move(*found);
  throw invalid_argument("--chat: " + dir.string() +
                         " has no chat template (chat_template.jinja, or chat_template in "
                         "tokenizer_config.json); leave --chat out to continue a text");
}

// The next line that is not empty; nothing at the end of the input.
std::optional<std::string> read_message() {
  const bool from_terminal = ::isatty(STDIN_FILENO) != 0;
  let_interrupts_end();
  std::string line;
  while (line.empty()) {
    if (from_terminal) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line)) return std::nullopt;
  }
  return line;
}

void report(const runtime::Runner& runner, engine::SequenceId sequence, const engine::Turn& turn,
            bool json) {
  const int64_t taken_in = turn.prompt_tokens - turn.kept_tokens;
  const Statistics s = statistics(runner, sequence, taken_in, turn.generation);
  if (json) {
    nlohmann::ordered_json object = to_json(s, turn.generation, turn.text);
    object["kept_tokens"] = turn.kept_tokens;
    std::cout << object.dump() << std::endl;
    return;
  }
  std::cout << std::endl;
  std::cerr << "\n"
            << taken_in << " tokens taken in, " << turn.kept_tokens << " kept from earlier turns; ";
  print_statistics(s, turn.generation.stop);
}

}  // namespace

int chat(runtime::Runner& runner, const std::filesystem::path& model_dir,
         engine::GenerateOptions generate, const ChatOptions& options) {
  const text::ChatTemplate chat_template = require_template(model_dir);
  const text::Tokenizer tokenizer(model_dir);
  for (int64_t id : text::reply_stop_ids(model_dir, tokenizer)) generate.stop_ids.push_back(id);
  engine::Conversation conversation(runner, tokenizer, chat_template, options.system);
  const auto show = [&](const std::string& text) {
    if (!options.json) std::cout << text << std::flush;
  };
  auto message = options.message ? options.message : read_message();
  while (message) {
    catch_interrupts();
    const engine::Turn turn = conversation.reply(*message, generate, show, interrupted);
    report(runner, conversation.sequence(), turn, options.json);
    if (options.message || interrupted()) break;
    message = read_message();
  }
  return interrupted() ? kExitInterrupted : 0;
}

}  // namespace dmc::cli
