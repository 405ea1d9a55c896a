// dmc run: continues a text, or answers as a chat model, and says what its cache took.
#include <algorithm>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/file.h"
#include "base/utf8.h"
#include "cli/chat.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "cli/prompts.h"
#include "cli/run_statistics.h"
#include "engine/generate.h"

namespace dmc::cli {
namespace {

struct RunCommand {
  ModelOptions model;
  std::string prompt;
  std::filesystem::path prompt_file;
  int64_t chunk = 1024;
  engine::GenerateOptions generate;
  bool has_text = false;  // a prompt or a file is given
  bool chat = false;
  std::string system;
  PromptOptions writing;
  std::optional<int64_t> eos_token_id;
  bool json = false;
};

// No more than the context may take is read, whatever stands there.
std::string read_prompt(const RunCommand& command, const runtime::Runner& runner) {
  const size_t most = most_prompt_bytes(runner);
  if (!command.prompt_file.empty()) return read_text_file(command.prompt_file, most);
  std::string prompt = command.prompt == "-" ? read_stream(std::cin, most + 1) : command.prompt;
  require_prompt_fits(prompt, runner);
  return prompt;
}

int continue_text(const RunCommand& command, runtime::Runner& runner,
                  const engine::GenerateOptions& options) {
  const std::string prompt = read_prompt(command, runner);
  if (!utf8_is_valid(prompt)) {
    std::cerr << "warning: the prompt is not valid UTF-8; what is not is read as U+FFFD\n";
  }
  const text::Tokenizer tokenizer(command.model.dir, runner.vocab_size());
  const std::vector<int32_t> ids = tokenizer.encode_prompt(prompt);
  engine::check_request(runner, ids, options);
  const auto sequence = engine::Sequence::add(runner);
  text::StreamDecoder decoder(tokenizer, /*continues=*/true);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (!command.json) std::cout << piece << std::flush;
  };
  catch_interrupts();
  if (!command.json) std::cout << prompt << std::flush;
  const engine::Generation generation = engine::generate(
      runner, sequence.id(), ids, options, [&](int32_t id) { show(decoder.push(id)); },
      interrupted);
  show(decoder.finish());

  const Statistics s =
      statistics(runner, sequence.id(), static_cast<int64_t>(ids.size()), generation);
  if (command.json) {
    std::cout << to_json(s, generation, text).dump() << "\n";
  } else {
    std::cout << std::endl;
    std::cerr << "\n";
    print_statistics(s, generation.stop);
  }
  return generation.stop == engine::StopReason::kCancelled ? kExitInterrupted : 0;
}

// Texts that are written by the scheduler: of a file of prompts, or with penalties or stop strings.
int continue_texts(const RunCommand& command, runtime::Runner& runner,
                   const engine::GenerateOptions& options) {
  const bool many = !command.writing.prompts.empty();
  const std::vector<std::string> prompts =
      many ? read_prompts(command.writing.prompts)
           : std::vector<std::string>{read_prompt(command, runner)};
  const text::Tokenizer tokenizer(command.model.dir, runner.vocab_size());
  const engine::RequestOptions asked{.sampling = options.sampling,
                                     .rules = command.writing.rules,
                                     .stop_ids = options.stop_ids,
                                     .max_tokens = options.max_tokens};
  catch_interrupts();
  const bool stream = !many && !command.json;
  if (stream) std::cout << prompts.front() << std::flush;
  std::function<void(size_t, const std::string&)> show;
  if (stream) show = [](size_t, const std::string& piece) { std::cout << piece << std::flush; };
  const std::vector<Written> texts =
      write_texts(runner, tokenizer, prompts, asked, command.writing.stop, show, interrupted);
  if (stream) std::cout << std::endl;
  if (interrupted()) return kExitInterrupted;
  for (size_t i = 0; i < texts.size() && !stream; ++i) {
    nlohmann::ordered_json line;
    if (many) line["prompt"] = utf8_repaired(prompts[i]);
    line.update({{"text", texts[i].text},
                 {"finish_reason", texts[i].finish_reason},
                 {"prompt_tokens", texts[i].prompt_tokens},
                 {"tokens", texts[i].tokens},
                 {"compression_ratio", texts[i].compression_ratio}});
    std::cout << line.dump() << "\n";
  }
  return 0;
}

int write(const RunCommand& command, runtime::Runner& runner,
          const engine::GenerateOptions& options) {
  if (command.writing.needed()) return continue_texts(command, runner, options);
  if (!command.chat) return continue_text(command, runner, options);
  ChatOptions chat_options{command.system, std::nullopt, command.json};
  if (command.has_text) chat_options.message = read_prompt(command, runner);
  return chat(runner, command.model.dir, options, chat_options);
}

int run(const RunCommand& command) {
  const runtime::PlacedModel model = place_model(command.model);
  runtime::RunnerOptions runner_setup = runner_options(command.model);
  runner_setup.chunk = command.chunk;
  runner_setup.cancelled = interrupted;
  const std::unique_ptr<runtime::Runner> runner =
      command.writing.needed() ? model.make_runner(runner_setup, kTextsAtOnce + 1)
                               : model.make_runner(runner_setup);
  engine::GenerateOptions options = command.generate;
  options.stop_ids = end_of_text(command.eos_token_id, model.model().config);
  try {
    return write(command, *runner, options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kCancelled) throw;
    return kExitInterrupted;
  }
}

}  // namespace

std::function<int()> setup_run(CLI::App& app) {
  auto command = std::make_shared<RunCommand>();
  engine::SamplingOptions& sampling = command->generate.sampling;
  add_model_options(app, command->model, "builtin-4x");
  add_inference_options(app, command->model, /*with_policy=*/true);
  add_device_option(app, command->model);
  CLI::Option* prompt =
      app.add_option("-p,--prompt", command->prompt, "text to continue; - reads standard input");
  CLI::Option* file = app.add_option("-f,--file", command->prompt_file, "file with the text");
  prompt->excludes(file);
  CLI::Option* chat = app.add_flag(
      "--chat", command->chat,
      "the text is a message to a chat model; without one, each line of standard input is");
  app.add_option("--system", command->system, "message that tells a chat model how to answer")
      ->needs(chat);
  app.add_option("-n,--tokens,--max-tokens", command->generate.max_tokens,
                 "tokens to write at most")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--temperature,--temp", sampling.temperature, "0: always the likeliest token")
      ->capture_default_str();
  app.add_option("--top-k", sampling.top_k, "choose among the k likeliest; 0: all")
      ->capture_default_str();
  app.add_option("--top-p", sampling.top_p,
                 "choose among the likeliest that reach this probability together")
      ->capture_default_str();
  app.add_option("--min-p", sampling.min_p, "drop tokens less likely than this times the likeliest")
      ->capture_default_str();
  add_prompt_options(app, command->writing);
  add_eos_option(app, command->eos_token_id);
  app.add_option("--seed", sampling.seed, "of the random choices")->capture_default_str();
  app.add_option("--chunk", command->chunk, "tokens of the prompt taken in at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_flag("--json", command->json, "print one JSON object instead");
  app.footer(
      list_of_policies() +
      "Examples:\n"
      "  dmc run -p 'def read_file(path):' -n 100\n"
      "  dmc run -m models/builtin-4x -f setup.py --temperature 0 --policy dense\n"
      "  dmc run -m ~/models/Qwen2.5-0.5B-Instruct --chat --system 'Answer in one sentence.'");
  return [command, prompt, file] {
    command->has_text = prompt->count() + file->count() > 0;
    if (command->chat && command->writing.needed()) {
      throw invalid_argument("chat",
                             "does not take --prompts, --stop or penalties yet; leave them out");
    }
    if (std::ranges::any_of(command->writing.stop, &std::string::empty)) {
      throw invalid_argument("stop", "is empty, which every text begins with; give some text");
    }
    if (!command->writing.prompts.empty() && command->has_text) {
      throw invalid_argument("prompts", "is given beside -p or -f; give one of them");
    }
    if (!command->has_text && !command->chat && command->writing.prompts.empty()) {
      throw invalid_argument("no text to continue; give -p TEXT, -f FILE or --prompts FILE.jsonl");
    }
    return run(*command);
  };
}

}  // namespace dmc::cli
