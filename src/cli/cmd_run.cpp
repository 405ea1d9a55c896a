// dmc run: continues a text and says what its cache took.
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/human.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/options.h"
#include "engine/generate.h"
#include "io/safetensors.h"

namespace dmc::cli {
namespace {

struct RunCommand {
  ModelOptions model;
  std::string prompt;
  std::filesystem::path prompt_file;
  int64_t chunk = 1024;
  engine::GenerateOptions generate;
  bool json = false;
};

std::string read_prompt(const RunCommand& command) {
  if (!command.prompt_file.empty()) return io::read_text_file(command.prompt_file, 64 << 20);
  if (command.prompt != "-") return command.prompt;
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

const char* reason_name(engine::StopReason reason) {
  switch (reason) {
    case engine::StopReason::kLength:
      return "length";
    case engine::StopReason::kEndOfText:
      return "end of text";
    case engine::StopReason::kContextFull:
      return "context full";
    case engine::StopReason::kCancelled:
      return "cancelled";
  }
  return "";
}

double per_second(int64_t count, double seconds) {
  return seconds > 0 ? static_cast<double>(count) / seconds : 0.0;
}

struct Statistics {
  int64_t tokens, slots, streams, bytes, prompt_tokens;
  double cr, prefill_rate, decode_rate;
};

Statistics statistics(const runtime::DecoderRunner& runner, engine::SequenceId sequence,
                      int64_t prompt_tokens, const engine::Generation& generation) {
  const cache::CacheConfig& config = runner.cache().config();
  const int64_t streams = static_cast<int64_t>(config.layers) * config.kv_heads;
  const int64_t tokens = runner.cache().length(sequence), slots = runner.cache().slots(sequence);
  const int64_t steps = tokens - prompt_tokens;
  return {tokens,
          slots,
          streams,
          runner.cache().bytes().total(),
          prompt_tokens,
          runner.compression_ratio(sequence),
          per_second(prompt_tokens, generation.prefill_seconds),
          per_second(steps, generation.decode_seconds)};
}

void print_statistics(const Statistics& s, engine::StopReason stop) {
  std::cerr << "\n"
            << s.tokens << " tokens seen, "
            << fixed(static_cast<double>(s.slots) / static_cast<double>(s.streams), 1)
            << " slots kept a head, CR " << fixed(s.cr, 2) << ", cache "
            << human_bytes(static_cast<double>(s.bytes)) << "; prefill "
            << human_count(s.prefill_rate) << " tok/s, decode " << human_count(s.decode_rate)
            << " tok/s; stopped: " << reason_name(stop) << "\n";
}

nlohmann::ordered_json to_json(const Statistics& s, const engine::Generation& generation,
                               const std::string& text) {
  return {{"text", text},
          {"token_ids", generation.tokens},
          {"stop", reason_name(generation.stop)},
          {"prompt_tokens", s.prompt_tokens},
          {"tokens", s.tokens},
          {"slots", s.slots},
          {"streams", s.streams},
          {"compression_ratio", s.cr},
          {"cache_bytes", s.bytes},
          {"prefill_tokens_per_second", s.prefill_rate},
          {"decode_tokens_per_second", s.decode_rate}};
}

int run(const RunCommand& command) {
  const std::string prompt = read_prompt(command);
  const auto model = load_model(command.model);
  const io::Tokenizer tokenizer(command.model.dir);
  runtime::RunnerOptions runner_setup = runner_options(command.model);
  runner_setup.chunk = command.chunk;
  runtime::DecoderRunner runner(model, runner_setup);
  engine::GenerateOptions options = command.generate;
  options.stop_ids = model->config.eos_token_ids;

  const std::vector<int32_t> ids = tokenizer.encode_prompt(prompt);
  engine::check_request(runner, ids, options);
  const engine::SequenceId sequence = runner.add_sequence();
  io::StreamDecoder decoder(tokenizer, /*continues=*/true);
  std::string text;
  const auto show = [&](const std::string& piece) {
    text += piece;
    if (!command.json) std::cout << piece << std::flush;
  };
  catch_interrupts();
  if (!command.json) std::cout << prompt << std::flush;
  const engine::Generation generation = engine::generate(
      runner, sequence, ids, options, [&](int32_t id) { show(decoder.push(id)); }, interrupted);
  show(decoder.finish());

  const Statistics s = statistics(runner, sequence, static_cast<int64_t>(ids.size()), generation);
  if (command.json) {
    std::cout << to_json(s, generation, text).dump() << "\n";
  } else {
    std::cout << std::endl;
    print_statistics(s, generation.stop);
  }
  return generation.stop == engine::StopReason::kCancelled ? kExitInterrupted : 0;
}

}  // namespace

std::function<int()> setup_run(CLI::App& app) {
  auto command = std::make_shared<RunCommand>();
  engine::SamplingOptions& sampling = command->generate.sampling;
  add_model_options(app, command->model, "builtin-4x");
  add_inference_options(app, command->model, /*with_policy=*/true);
  CLI::Option* prompt =
      app.add_option("-p,--prompt", command->prompt, "text to continue; - reads standard input");
  CLI::Option* file = app.add_option("-f,--file", command->prompt_file, "file with the text");
  prompt->excludes(file);
  app.add_option("-n,--tokens", command->generate.max_tokens, "tokens to write at most")
      ->check(CLI::Range(1, 1 << 30))
      ->capture_default_str();
  app.add_option("--temperature", sampling.temperature, "0: always the likeliest token")
      ->capture_default_str();
  app.add_option("--top-k", sampling.top_k, "choose among the k likeliest; 0: all")
      ->capture_default_str();
  app.add_option("--top-p", sampling.top_p,
                 "choose among the likeliest that reach this probability together")
      ->capture_default_str();
  app.add_option("--seed", sampling.seed, "of the random choices")->capture_default_str();
  app.add_option("--chunk", command->chunk, "tokens of the prompt taken in at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_flag("--json", command->json, "print one JSON object instead");
  app.footer(
      "Examples:\n"
      "  dmc run -p 'def read_file(path):' -n 100\n"
      "  dmc run -m models/builtin-4x -f setup.py --temperature 0 --policy dense");
  return [command, prompt, file] {
    if (prompt->count() == 0 && file->count() == 0) {
      throw usage_error("no text to continue; give -p TEXT or -f FILE");
    }
    return run(*command);
  };
}

}  // namespace dmc::cli
