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

std::vector<int32_t> Conversation::tokens_of(const text::ChatPrompt& prompt) const {
  return tokenizer_.encode_marked(prompt.text, prompt.untrusted);
}

// The template is asked once; later turns are rendered once, and end as the first one did.
text::ChatPrompt Conversation::without_beginning(const text::ChatPrompt& prompt,
                                                 const nlohmann::ordered_json& messages) {
  if (!beginning_ || !prompt.text.ends_with(*beginning_)) {
    text::ChatPrompt lasting = chat_.render(messages, /*add_generation_prompt=*/false);
    if (prompt.text.starts_with(lasting.text)) {
      beginning_ = prompt.text.substr(lasting.text.size());
    }
    return lasting;
  }
  text::ChatPrompt lasting{prompt.text.substr(0, prompt.text.size() - beginning_->size()), {}};
  for (const ByteRange& range : prompt.untrusted) {
    const ByteRange kept{range.begin, std::min(range.end, lasting.text.size())};
    if (kept.begin < kept.end) lasting.untrusted.push_back(kept);
  }
  return lasting;
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
  nlohmann::ordered_json messages = messages_;
  add_message(&messages, "user", message);
  const text::ChatPrompt prompt = chat_.render(messages, /*add_generation_prompt=*/true);
  const std::vector<int32_t> tokens = tokens_of(prompt);
  check_request(runner_, tokens, options);
  const std::vector<int32_t> lasting = tokens_of(without_beginning(prompt, messages));
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
  add_message(&messages, "assistant", turn.text);
  messages_ = std::move(messages);
  return turn;
}

}  // namespace dmc::engine
