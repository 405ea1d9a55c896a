#include "cli/prompts.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "engine/scheduler.h"
#include "engine/stop_strings.h"
#include "text/packed_file.h"
#include "text/strings.h"

namespace dmc::cli {
namespace {

// What becomes of one prompt.
class Continuation : public engine::RequestListener {
 public:
  Continuation(const text::Tokenizer& tokenizer, std::vector<std::string> stop,
               std::function<void(const std::string&)> show)
      : decoder_(tokenizer, /*continues=*/true), stop_(std::move(stop)), show_(std::move(show)) {}

  bool token(int64_t, const engine::WrittenToken& token) override {
    if (token.stop) return false;
    ++written.tokens;
    take(decoder_.push(token.token));
    return stop_.found().has_value();
  }
  void ended(int64_t, const engine::Ending& ending) override {
    if (!stop_.found()) {
      take(decoder_.finish());
      if (!stop_.found()) add(stop_.finish());
    }
    const bool stopped = stop_.found() || ending.reason == engine::FinishReason::kStop;
    written.finish_reason = stopped ? "stop" : "length";
    written.compression_ratio = ending.cache.compression_ratio;
  }
  void failed(const Error& why) override { error = why; }

  Written written;
  std::optional<Error> error;

 private:
  void take(const std::string& piece) {
    if (!piece.empty()) add(stop_.push(piece));
  }
  void add(const std::string& piece) {
    written.text += piece;
    if (show_ && !piece.empty()) show_(piece);
  }

  text::StreamDecoder decoder_;
  engine::StopStrings stop_;
  std::function<void(const std::string&)> show_;
};

std::string prompt_of(std::string_view line, const std::string& where) {
  const nlohmann::json record = parse_json(line, where);
  if (record.is_string()) return record.get<std::string>();
  if (record.is_object() && record.contains("prompt") && record["prompt"].is_string()) {
    return record["prompt"].get<std::string>();
  }
  throw data_error(where + ": expected a string or an object with a \"prompt\"");
}

}  // namespace

void add_prompt_options(CLI::App& app, PromptOptions& options) {
  app.add_option(
         "--prompts", options.prompts,
         "a .jsonl file, a prompt a line ({\"prompt\": \"...\"} or a string): all are continued "
         "at once, and the answers printed in their order as .jsonl")
      ->check(CLI::ExistingFile);
  app.add_option("--stop", options.stop, "string that ends the text; may be given several times")
      ->allow_extra_args(false);
  engine::LogitRules& rules = options.rules;
  app.add_option("--repetition-penalty", rules.repetition_penalty,
                 "above 1: what prompt or text has becomes less likely (1.1 is usual)")
      ->capture_default_str();
  app.add_option("--presence-penalty", rules.presence_penalty,
                 "taken off the logits of tokens that the text has")
      ->capture_default_str();
  app.add_option("--frequency-penalty", rules.frequency_penalty,
                 "the same, for each time it has it")
      ->capture_default_str();
}

size_t most_prompt_bytes(const engine::ModelRunner& runner) {
  constexpr size_t kBytesPerToken = 16;
  return kBytesPerToken * static_cast<size_t>(runner.max_positions());
}

void require_prompt_fits(std::string_view prompt, const engine::ModelRunner& runner) {
  const size_t most = most_prompt_bytes(runner);
  if (prompt.size() <= most) return;
  throw invalid_argument("the prompt has more than " + std::to_string(most) +
                         " bytes, 16 for each token of the model's context of " +
                         std::to_string(runner.max_positions()) + "; shorten the prompt");
}

std::string read_stream(std::istream& in, size_t most) {
  std::string text;
  char buffer[4096];
  while (text.size() < most && in) {
    in.read(buffer, static_cast<std::streamsize>(std::min(sizeof buffer, most - text.size())));
    text.append(buffer, static_cast<size_t>(in.gcount()));
  }
  return text;
}

std::vector<std::string> read_prompts(const std::filesystem::path& file) {
  const std::string content = text::read_unpacked(file, size_t{64} << 20);
  std::vector<std::string> prompts;
  int64_t number = 0;
  for (std::string_view line : text::split_lines(content)) {
    ++number;
    if (text::stripped(line).empty()) continue;
    prompts.push_back(prompt_of(line, file.string() + ", line " + std::to_string(number)));
  }
  if (prompts.empty()) throw data_error(file.string() + ": holds no prompt");
  return prompts;
}

std::vector<Written> write_texts(runtime::Runner& runner, const text::Tokenizer& tokenizer,
                                 const std::vector<std::string>& prompts,
                                 const engine::RequestOptions& options,
                                 const std::vector<std::string>& stop,
                                 const std::function<void(size_t, const std::string&)>& show,
                                 const std::function<bool()>& interrupted) {
  engine::Scheduler scheduler(runner, {.max_sequences = kTextsAtOnce});
  std::vector<std::shared_ptr<Continuation>> all;
  for (size_t i = 0; i < prompts.size(); ++i) {
    std::function<void(const std::string&)> show_this;
    if (show) show_this = [&show, i](const std::string& piece) { show(i, piece); };
    all.push_back(std::make_shared<Continuation>(tokenizer, stop, std::move(show_this)));
    require_prompt_fits(prompts[i], runner);
    std::vector<int32_t> ids = tokenizer.encode_prompt(prompts[i]);
    all.back()->written.prompt_tokens = static_cast<int64_t>(ids.size());
    scheduler.submit(std::make_shared<engine::Request>(std::move(ids), options, all.back()));
  }
  while (scheduler.step()) {
    if (interrupted()) return {};
  }
  std::vector<Written> result;
  for (const auto& one : all) {
    if (one->error) throw *one->error;
    result.push_back(std::move(one->written));
  }
  return result;
}

}  // namespace dmc::cli
