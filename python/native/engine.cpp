#include "engine.h"

#include <algorithm>

#include "base/join.h"
#include "base/json.h"
#include "base/precision.h"
#include "eval/continuation.h"
#include "kernels/slot_page.h"
#include "model/model_path.h"
#include "text/generation_config.h"

namespace dmc::python {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSnapshots = 16;  // prompts' beginnings that stay in the cache

DType find(const Precisions& precisions, const char* field, const std::string& name) {
  const auto found = precisions.find(name);
  if (found != precisions.end()) return found->second;
  throw invalid_argument(field,
                         "\"" + name + "\" is not one of " +
                             join(precisions, ", ", [](const auto& entry) { return entry.first; }));
}

fs::path find_path(const std::string& name) {
  const fs::path path = model::find_model(name);
  model::require_model_path(path);
  return path;
}

runtime::PlacedModel place(const fs::path& path, const EngineOptions& options) {
  std::optional<DType> type;
  if (!options.weights.empty()) type = find(weight_precisions(), "weights", options.weights);
  if (options.device != "cpu" && options.device != "cuda") {
    throw invalid_argument("device", "\"" + options.device + "\" is neither cpu nor cuda");
  }
  auto model = runtime::load_model(path, type, options.adapter);
  if (options.device == "cpu") return {std::move(model)};
  return {std::move(model), kernels::cuda::open_cuda_device()};
}

kernels::PageFormat page_format(const EngineOptions& options, const model::ModelConfig& config) {
  return {kPageSlots, static_cast<int>(config.head_dim), find(slot_precisions(), "kv", options.kv),
          options.policy.mass_term};
}

runtime::RunnerOptions runner_options(const EngineOptions& options,
                                      const model::ModelConfig& config) {
  runtime::RunnerOptions result;
  result.compression = options.policy;
  result.kv = find(slot_precisions(), "kv", options.kv);
  result.max_positions = options.context;
  if (options.cache_bytes > 0) {
    result.max_pages =
        std::max<int64_t>(1, options.cache_bytes / page_format(options, config).bytes());
  }
  return result;
}

// Of a text's windows, as long as two tokens are left: one predicts nothing.
text::EvalWindows cut(const Engine::Tokens& text, int64_t window) {
  text::EvalWindows windows;
  const auto size = static_cast<size_t>(window);
  for (size_t first = 0; first + 1 < text.size(); first += size) {
    const auto begin = text.begin() + static_cast<ptrdiff_t>(first);
    const auto count = std::min(size, text.size() - first);
    windows.tokens.emplace_back(begin, begin + static_cast<ptrdiff_t>(count));
    windows.bytes.push_back(0);
  }
  return windows;
}

nlohmann::ordered_json parse_limited(const std::string& json, const char* field) {
  parse_json(json, field);  // with its limits
  return nlohmann::ordered_json::parse(json);
}

}  // namespace

Engine::Engine(const std::string& model, const EngineOptions& options)
    : options_(options),
      path_(find_path(model)),
      model_(place(path_, options)),
      tokenizer_(path_),
      chat_(text::ChatTemplate::find(path_)),
      reply_ids_(text::reply_stop_ids(path_, tokenizer_)),
      // One more for the empty sequence that the scheduler measures with, and those that are kept.
      runner_(model_.make_runner(runner_options(options, config()),
                                 static_cast<int>(options.max_sequences + 1 + kSnapshots))),
      loop_(*runner_, loop_options()) {}

engine::EngineLoop::Options Engine::loop_options() const {
  constexpr int64_t kRatedBytes = 128 << 20;  // of logits, should a prompt be rated
  engine::EngineLoop::Options result;
  result.queue = int64_t{1} << 20;  // a call brings as many prompts as it likes
  engine::SchedulerOptions& scheduler = result.scheduler;
  scheduler.max_sequences = options_.max_sequences;
  const int64_t rated = kRatedBytes / (4 * std::max<int64_t>(1, runner_->vocab_size()));
  scheduler.chunk_tokens =
      std::clamp<int64_t>(rated / kPageSlots * kPageSlots, kPageSlots, scheduler.chunk_tokens);
  scheduler.chunks_matter =
      find(slot_precisions(), "kv", options_.kv) != DType::kF32 || options_.policy.cr > 1.0;
  if (options_.share_prefixes && runner_->policy().shares_prefixes())
    scheduler.snapshots = kSnapshots;
  scheduler.slots_of = [this](engine::SequenceId id) { return runner_->slots(id); };
  return result;
}

Engine::Tokens Engine::encode(const std::string& text, bool as_prompt) const {
  return as_prompt ? tokenizer_.encode_prompt(text) : tokenizer_.encode(text);
}

Engine::Tokens Engine::encode_chat(const std::string& messages, const std::string& variables,
                                   bool reply_follows) const {
  if (!chat_) throw invalid_argument("messages", "the model has no chat template; use generate()");
  const text::ChatPrompt prompt = chat_->render(parse_limited(messages, "messages"), reply_follows,
                                                parse_limited(variables, "chat_template_kwargs"));
  return tokenizer_.encode_marked(prompt.text, prompt.untrusted);
}

void Engine::check(const Tokens& tokens, const char* field) const {
  if (tokens.empty()) throw invalid_argument(field, "has no tokens");
  for (const int32_t token : tokens) {
    if (token >= 0 && token < runner_->vocab_size()) continue;
    throw invalid_argument(field, "has the token " + std::to_string(token) +
                                      ", expected ids below " +
                                      std::to_string(runner_->vocab_size()));
  }
}

std::unique_ptr<Ticket> Engine::submit(Tokens prompt, Asked asked) {
  constexpr int64_t kMostChoices = 4096;
  check(prompt, "prompt");
  engine::RequestOptions options = asked.request;
  if (options.choices < 1 || options.choices > kMostChoices) {
    throw invalid_argument("n", "expected 1 to 4096, found " + std::to_string(options.choices));
  }
  if (std::ranges::count(asked.stop, "") > 0) throw invalid_argument("stop", "has an empty string");
  if (!asked.ignore_eos) {
    const auto add = [&](const std::vector<int64_t>& ids) {
      options.stop_ids.insert(options.stop_ids.end(), ids.begin(), ids.end());
    };
    add(config().eos_token_ids);
    if (asked.chat) add(reply_ids_);
  }
  auto answer = std::make_shared<Answer>(tokenizer_, std::move(asked),
                                         [this](int64_t slots) { return bytes_of(slots); });
  auto request = std::make_shared<engine::Request>(std::move(prompt), std::move(options), answer);
  loop_.submit({request});
  return std::make_unique<Ticket>(std::move(answer), std::move(request));
}

int64_t Engine::bytes_of(int64_t slots) const {
  const auto* on_cpu = dynamic_cast<const runtime::DecoderRunner*>(runner_.get());
  if (on_cpu != nullptr) return cache::stream_bytes(on_cpu->cache().config(), slots).total();
  const kernels::PageFormat page = page_format(options_, config());
  return (slots + kPageSlots - 1) / kPageSlots * page.bytes();
}

int64_t Engine::page_bytes() const { return page_format(options_, config()).bytes(); }

void Engine::keep(std::shared_ptr<void> heard) {
  const std::lock_guard one_at_a_time(scoring_);
  kept_.push_back(std::move(heard));
}

runtime::Runner& Engine::scorer() {
  if (!scorer_) scorer_ = model_.make_runner(runner_options(options_, config()));
  return *scorer_;
}

eval::Score Engine::score(const Tokens& text, int64_t window,
                          const std::function<void(int64_t)>& progress) {
  check(text, "text");
  if (text.size() < 2) throw invalid_argument("text", "has one token, which nothing predicts");
  const int64_t size = window > 0 ? window : context();
  if (size < 2 || size > context()) {
    throw invalid_argument("window", "expected 2 to " + std::to_string(context()) + ", found " +
                                         std::to_string(window));
  }
  const std::lock_guard one_at_a_time(scoring_);
  return eval::score(scorer(), cut(text, size), progress);
}

std::vector<eval::LogLikelihood> Engine::rate(const Tokens& context,
                                              const std::vector<Tokens>& continuations) {
  check(context, "context");
  for (const Tokens& continuation : continuations) {
    check(continuation, "continuations");
    if (static_cast<int64_t>(continuation.size()) <= this->context()) continue;
    throw invalid_argument("continuations", "has one of " + std::to_string(continuation.size()) +
                                                " tokens; the model's context is " +
                                                std::to_string(this->context()));
  }
  const std::lock_guard one_at_a_time(scoring_);
  return eval::ContinuationScorer(scorer(), tokenizer_).score_tokens(context, continuations);
}

}  // namespace dmc::python
