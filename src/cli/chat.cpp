#include "cli/chat.h"

#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/human.h"
#include "base/table.h"
#include "cli/interrupt.h"
#include "cli/line_editor.h"
#include "cli/prompts.h"
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

// No context takes more; a file without line ends must not fill memory.
constexpr size_t kLongestLine = size_t{16} << 20;  // bytes

// A line, or its first `most` bytes.
bool get_line(size_t most, std::string* line) {
  line->clear();
  for (int c = std::cin.get(); c != EOF; c = std::cin.get()) {
    if (c == '\n') return true;
    line->push_back(static_cast<char>(c));
    if (line->size() == most) return true;
  }
  return !line->empty();
}

// The next line that is not empty; nothing at the end of the input.
std::optional<std::string> read_message(LineEditor* terminal) {
  let_interrupts_end();
  std::string line;
  while (line.empty()) {
    if (terminal != nullptr) {
      const auto typed = terminal->read("> ");
      if (!typed) return std::nullopt;
      line = *typed;
    } else if (!get_line(kLongestLine, &line)) {
      return std::nullopt;
    }
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

// The conversation in hand, which commands may begin anew.
class Talk {
 public:
  Talk(runtime::Runner& runner, const text::Tokenizer& tokenizer, const text::ChatTemplate& chat,
       std::string system)
      : runner_(runner), tokenizer_(tokenizer), chat_(chat), system_(std::move(system)) {
    begin();
  }
  void begin() { conversation_.emplace(runner_, tokenizer_, chat_, system_), begun_ = false; }
  void begin(const std::string& system) {
    system_ = system;
    begin();
  }
  engine::Conversation& conversation() { return *conversation_; }
  void replied() { begun_ = true; }
  // Slots and ratio of each layer.
  void show_cache() const;

 private:
  runtime::Runner& runner_;
  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate& chat_;
  std::string system_;
  std::optional<engine::Conversation> conversation_;
  bool begun_ = false;
};

void Talk::show_cache() const {
  if (!begun_) {
    std::cerr << "nothing is in the cache yet\n";
    return;
  }
  const engine::SequenceId sequence = conversation_->sequence();
  const std::vector<int64_t> slots = runner_.slots(sequence);
  const auto heads = static_cast<size_t>(runner_.model().config.num_kv_heads);
  const auto tokens = static_cast<double>(runner_.length(sequence));
  Table table({{"layer"}, {"slots a head"}, {"CR"}});
  for (size_t first = 0; first < slots.size(); first += heads) {
    double kept = 0.0;
    for (const int64_t count : std::span(slots).subspan(first, heads)) {
      kept += static_cast<double>(count) / static_cast<double>(heads);
    }
    table.add_row({std::to_string(first / heads), fixed(kept, 1), fixed(tokens / kept, 2)});
  }
  table.print(std::cerr);
}

enum class Next { kRead, kEnd };

struct Command {
  std::string_view name, argument, summary;
  Next (*run)(Talk& talk, const std::string& argument);
};

Next show_help(Talk& talk, const std::string& argument);

constexpr Command kCommands[] = {
    {"/help", "", "this list", show_help},
    {"/clear", "", "begins a new conversation",
     [](Talk& talk, const std::string&) {
       talk.begin();
       return Next::kRead;
     }},
    {"/system", "TEXT", "begins one that is told TEXT first",
     [](Talk& talk, const std::string& text) {
       talk.begin(text);
       return Next::kRead;
     }},
    {"/cache", "", "slots and compression ratio of each layer",
     [](Talk& talk, const std::string&) {
       talk.show_cache();
       return Next::kRead;
     }},
    {"/quit", "", "ends, as Ctrl-D does", [](Talk&, const std::string&) { return Next::kEnd; }},
};

Next show_help(Talk&, const std::string&) {
  for (const Command& command : kCommands) {
    std::string use(command.name);
    if (!command.argument.empty()) use += " " + std::string(command.argument);
    use.resize(16, ' ');
    std::cerr << use << command.summary << "\n";
  }
  std::cerr << "All else is a message. Ctrl-D ends, and Ctrl-C ends a reply, too.\n";
  return Next::kRead;
}

// What was typed is a command if it begins with a slash.
Next obey(Talk& talk, const std::string& line) {
  const size_t end = line.find(' ');
  const std::string name = line.substr(0, end);
  const auto command = std::ranges::find(kCommands, name, &Command::name);
  if (command != std::end(kCommands)) {
    return command->run(talk, end == std::string::npos ? "" : line.substr(end + 1));
  }
  std::cerr << "there is no " << name << "; /help tells what there is\n";
  return Next::kRead;
}

// The next message; what is typed before it as commands is done.
std::optional<std::string> next_message(Talk& talk, LineEditor* terminal) {
  for (;;) {
    auto line = read_message(terminal);
    if (!line || terminal == nullptr || !line->starts_with('/')) return line;
    if (obey(talk, *line) == Next::kEnd) return std::nullopt;
  }
}

}  // namespace

int chat(runtime::Runner& runner, const std::filesystem::path& model_dir,
         engine::GenerateOptions generate, const ChatOptions& options) {
  const text::ChatTemplate chat_template = require_template(model_dir);
  const text::Tokenizer tokenizer(model_dir, runner.vocab_size());
  for (int64_t id : text::reply_stop_ids(model_dir, tokenizer)) generate.stop_ids.push_back(id);
  Talk talk(runner, tokenizer, chat_template, options.system);
  std::optional<LineEditor> terminal;
  if (!options.message && ::isatty(STDIN_FILENO) != 0) {
    terminal.emplace(history_file());
    std::cerr << "/help tells of commands, Ctrl-D ends\n";
  }
  LineEditor* const typing = terminal ? &*terminal : nullptr;
  const auto show = [&](const std::string& text) {
    if (!options.json) std::cout << text << std::flush;
  };
  auto message = options.message ? options.message : next_message(talk, typing);
  while (message) {
    require_prompt_fits(*message, runner);
    catch_interrupts();
    const engine::Turn turn = talk.conversation().reply(*message, generate, show, interrupted);
    talk.replied();
    report(runner, talk.conversation().sequence(), turn, options.json);
    if (options.message || interrupted()) break;
    message = next_message(talk, typing);
  }
  return interrupted() ? kExitInterrupted : 0;
}

}  // namespace dmc::cli
