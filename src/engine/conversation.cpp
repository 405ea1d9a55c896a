#include "engine/conversation.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/stopwatch.h"

namespace dmc::engine {
namespace {

void add_message(nlohmann::ordered_json* messages, const char* role, const std::string& text) {
  messages->push_back({{"role", role}, {"content", text}});
}

// Tokens that both begin with.
size_t common_length(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

Conversation::Conversation(ModelRunner& runner, const text::Tokenizer& tokenizer,
                           const text::ChatTemplate& chat, const std::string& system)
    : runner_(runner), tokenizer_(tokenizer), chat_(chat) {
  if (!system.empty()) add_message(&messages_, "system", system);
}

std::vector<int32_t> Conversation::tokens_so_far(bool add_generation_prompt) const {
  const text::ChatPrompt prompt = chat_.render(messages_, add_generation_prompt);
  return tokenizer_.encode_marked(prompt.text, prompt.untrusted);
}

// after_reply_ becomes the state that has taken in most of `tokens`, but not all: the last one
// gives the logits.
void Conversation::resume(std::span<const int32_t> tokens) {
  std::optional<Held> chosen;
  for (std::optional<Held>* state : {&after_reply_, &after_message_}) {
    if (!*state) continue;
    const std::vector<int32_t>& held = (*state)->tokens;
    const bool goes_on =
        held.size() < tokens.size() && std::ranges::equal(held, tokens.first(held.size()));
    if (goes_on && !chosen) {
      chosen = std::exchange(*state, std::nullopt);
    } else {
      state->reset();
    }
  }
  after_reply_ = chosen ? std::move(*chosen) : Held{Sequence::add(runner_), {}};
}

// Takes in `tokens` and keeps the state as after_message_, too.
void Conversation::take_in_message(std::span<const int32_t> tokens) {
  Held& state = *after_reply_;
  if (!tokens.empty()) prefill(runner_, state.sequence.id(), tokens);
  state.tokens.insert(state.tokens.end(), tokens.begin(), tokens.end());
  after_message_.emplace(state.sequence.fork(), state.tokens);
}

Turn Conversation::reply(const std::string& message, const GenerateOptions& options,
                         const std::function<void(const std::string&)>& on_text,
                         const std::function<bool()>& cancelled) {
  add_message(&messages_, "user", message);
  const std::vector<int32_t> tokens = tokens_so_far(true), lasting = tokens_so_far(false);
  check_request(runner_, tokens, options);
  resume(tokens);
  Held& state = *after_reply_;
  const auto kept = state.tokens.size();

  const Stopwatch watch;
  const size_t last = tokens.size() - 1;
  const auto message_end = std::clamp(common_length(tokens, lasting), kept, last);
  take_in_message(std::span(tokens).first(message_end).subspan(kept));
  const double seconds = watch.seconds();

  Turn turn{.prompt_tokens = std::ssize(tokens), .kept_tokens = static_cast<int64_t>(kept)};
  text::StreamDecoder decoder(tokenizer_, /*continues=*/true);
  const auto show = [&](const std::string& text) {
    turn.text += text;
    on_text(text);
  };
  const auto rest = std::span(tokens).subspan(message_end);
  GenerateOptions continued = options;
  continued.held_tokens = static_cast<int64_t>(message_end);
  turn.generation = generate(
      runner_, state.sequence.id(), rest, continued, [&](int32_t id) { show(decoder.push(id)); },
      cancelled);
  show(decoder.finish());
  turn.generation.prefill_seconds += seconds;

  const auto& written = turn.generation.tokens;
  state.tokens = tokens;
  state.tokens.insert(state.tokens.end(), written.begin(),
                      written.begin() + turn.generation.taken_in);
  add_message(&messages_, "assistant", turn.text);
  return turn;
}

}  // namespace dmc::engine
