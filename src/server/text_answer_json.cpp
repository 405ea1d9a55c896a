// The JSON of TextAnswer, written by hand: a chunk goes out for every token.
#include <algorithm>
#include <map>

#include "base/join.h"
#include "server/json_text.h"
#include "server/text_answer.h"

namespace dmc::server {
namespace {

std::string integers(const std::vector<int32_t>& ids) {
  return "[" + join(ids, ",", [](int32_t id) { return std::to_string(id); }) + "]";
}

void append_logprob(std::string* out, float logprob) { append_json_number(out, logprob); }

// {"token":..., "logprob":..., "bytes":[...]} without the closing brace.
std::string chat_token(const text::Tokenizer& tokenizer, const engine::TokenLogprob& rated) {
  std::string out = "{\"token\":";
  append_json_string(&out, token_text(tokenizer, rated.token));
  out += ",\"logprob\":";
  append_logprob(&out, rated.logprob);
  out += ",\"bytes\":[";
  const std::string_view bytes = tokenizer.token_bytes(rated.token);
  out += join(bytes, ",", [](char c) { return std::to_string(static_cast<unsigned char>(c)); });
  return out + "]";
}

}  // namespace

std::string TextAnswer::head(bool chunk) const {
  std::string out = "{\"id\":\"" + id_ + "\",\"object\":\"";
  out += !chat() ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
  out += "\",\"created\":" + std::to_string(created_) + ",\"model\":";
  append_json_string(&out, model_.id);
  return out + ",\"system_fingerprint\":\"dmc-" + model_.policy + "\"";
}

std::string TextAnswer::usage() const {
  int64_t prompt_tokens = 0, written = 0, cached = 0;
  for (size_t p = 0; p < prompts_.size(); ++p) {
    prompt_tokens += std::ssize(request_.prompts[p]);
    cached += prompts_[p].cached;
    for (const Choice& choice : prompts_[p].choices) written += choice.tokens;
  }
  return "{\"prompt_tokens\":" + std::to_string(prompt_tokens) +
         ",\"completion_tokens\":" + std::to_string(written) +
         ",\"total_tokens\":" + std::to_string(prompt_tokens + written) +
         ",\"prompt_tokens_details\":{\"cached_tokens\":" + std::to_string(cached) +
         "},\"dmc\":" + cache_usage() + "}";
}

// Of the texts of this request: tokens they have taken in, slots they keep for them (on average by
// layer and head), the bytes of these, and the ratio they were held at in the end.
std::string TextAnswer::cache_usage() const {
  int64_t tokens = 0;
  double held = 0.0;
  std::vector<int64_t> slots(static_cast<size_t>(model_.layers * model_.kv_heads));
  for (const Prompt& prompt : prompts_) {
    for (const Choice& choice : prompt.choices) {
      tokens += choice.cache.tokens;
      held = std::max(held, choice.cache.held_cr);
      if (choice.cache.slots.size() != slots.size()) continue;
      for (size_t i = 0; i < slots.size(); ++i) slots[i] += choice.cache.slots[i];
    }
  }
  const auto streams = static_cast<double>(slots.size());
  double kept = 0.0;
  for (int64_t count : slots) kept += static_cast<double>(count);
  const double dense = static_cast<double>(tokens) * streams;
  std::string out = "{\"policy\":" + json_string(model_.policy) +
                    ",\"tokens_seen\":" + std::to_string(tokens) +
                    ",\"slots_kept\":" + json_number(streams > 0 ? kept / streams : 0.0) +
                    ",\"compression_ratio\":" + json_number(kept > 0 ? dense / kept : 1.0) +
                    ",\"cache_bytes\":" + json_number(kept * model_.slot_bytes) +
                    ",\"dense_bytes\":" + json_number(dense * model_.slot_bytes);
  if (held > 0.0) out += ",\"held_ratio\":" + json_number(held);
  if (request_.slots) {
    out += ",\"slots\":[";
    for (int64_t layer = 0; layer < model_.layers; ++layer) {
      const auto heads = std::span(slots).subspan(static_cast<size_t>(layer * model_.kv_heads),
                                                  static_cast<size_t>(model_.kv_heads));
      out += layer > 0 ? ",[" : "[";
      out += join(heads, ",", [](int64_t n) { return std::to_string(n); }) + "]";
    }
    out += "]";
  }
  return out + "}";
}

std::string TextAnswer::delta(const std::string& fields, size_t prompt, int64_t index,
                              const std::string& rest) const {
  std::string out = head(true) +
                    ",\"choices\":[{\"index\":" + std::to_string(choice_index(prompt, index)) +
                    ",\"delta\":" + fields + rest + "}]";
  if (request_.usage_in_each) out += ",\"usage\":" + usage();
  return out + "}";
}

// What came since the last time (all, where nothing is streamed); in a chunk it is an event of its
// own.
std::string TextAnswer::choice_json(size_t prompt, int64_t index, bool chunk) {
  Choice& choice = prompts_[prompt].choices[static_cast<size_t>(index)];
  std::string text;
  append_json_string(&text, std::exchange(choice.text, {}));
  std::string rest = ",\"logprobs\":" + logprobs_json(std::exchange(choice.rated, {}));
  if (request_.token_ids) rest += ",\"token_ids\":" + integers(std::exchange(choice.ids, {}));
  const bool ends = choice.over && !(chunk && chat());
  rest += ",\"finish_reason\":" + (ends ? "\"" + choice.finish_reason + "\"" : "null");
  if (ends) rest += ",\"stop_reason\":" + choice.stop_reason;
  if (!chunk && request_.token_ids) {
    rest += ",\"prompt_token_ids\":" + integers(request_.prompts[prompt]);
  }
  if (!chunk) rest += prompt_logprobs_json(prompt);
  if (chunk && chat()) return delta("{\"content\":" + text + "}", prompt, index, rest);
  std::string out = "{\"index\":" + std::to_string(choice_index(prompt, index));
  out += chat() ? ",\"message\":{\"role\":\"assistant\",\"content\":" + text + ",\"refusal\":null}"
                : ",\"text\":" + text;
  out += rest + "}";
  if (!chunk) return out;
  out = head(true) + ",\"choices\":[" + out + "]";
  if (request_.usage_in_each) out += ",\"usage\":" + usage();
  return out + "}";
}

std::string TextAnswer::logprobs_json(const std::vector<Rated>& rated) const {
  if (!request_.engine.logprobs) return "null";
  return chat() ? chat_logprobs(rated) : completion_logprobs(rated);
}

std::string TextAnswer::completion_logprobs(const std::vector<Rated>& rated) const {
  std::string tokens, logprobs, offsets, tops;
  const auto most = static_cast<size_t>(*request_.engine.logprobs);
  for (size_t i = 0; i < rated.size(); ++i) {
    const char* comma = i > 0 ? "," : "";
    tokens += comma;
    append_json_string(&tokens, token_text(model_.tokenizer, rated[i].token));
    offsets += comma + std::to_string(rated[i].offset);
    logprobs += comma, tops += comma;
    if (!rated[i].logprobs) {
      logprobs += "null", tops += "null";
      continue;
    }
    append_logprob(&logprobs, rated[i].logprobs->token.logprob);
    // By text: where two tokens print alike, the likelier counts.
    std::vector<std::pair<std::string, float>> listed;
    const auto add = [&](const engine::TokenLogprob& token) {
      std::string text = token_text(model_.tokenizer, token.token);
      const auto same = std::ranges::find(listed, text, [](const auto& e) { return e.first; });
      if (same == listed.end()) {
        listed.emplace_back(std::move(text), token.logprob);
      } else {
        same->second = std::max(same->second, token.logprob);
      }
    };
    const auto& top = rated[i].logprobs->top;
    std::ranges::for_each(std::span(top).first(std::min(most, top.size())), add);
    add(rated[i].logprobs->token);
    tops += "{";
    for (size_t k = 0; k < listed.size(); ++k) {
      if (k > 0) tops += ",";
      append_json_string(&tops, listed[k].first);
      tops += ":";
      append_logprob(&tops, listed[k].second);
    }
    tops += "}";
  }
  return "{\"text_offset\":[" + offsets + "],\"token_logprobs\":[" + logprobs + "],\"tokens\":[" +
         tokens + "],\"top_logprobs\":[" + tops + "]}";
}

std::string TextAnswer::chat_logprobs(const std::vector<Rated>& rated) const {
  const auto write = [&](const Rated& one) {
    std::string out = chat_token(model_.tokenizer, one.logprobs->token) + ",\"top_logprobs\":[";
    out += join(one.logprobs->top, ",", [&](const engine::TokenLogprob& token) {
      return chat_token(model_.tokenizer, token) + "}";
    });
    return out + "]}";
  };
  return "{\"content\":[" + join(rated, ",", write) + "],\"refusal\":null}";
}

// As vLLM has it: by token id, null for the first.
std::string TextAnswer::prompt_logprobs_json(size_t prompt) const {
  if (!request_.engine.prompt_logprobs || request_.echo) return "";
  const auto entry = [&](const engine::TokenLogprob& token, int64_t rank) {
    std::string out = "\"" + std::to_string(token.token) + "\":{\"logprob\":";
    append_logprob(&out, token.logprob);
    out += ",\"rank\":" + std::to_string(rank) + ",\"decoded_token\":";
    append_json_string(&out, token_text(model_.tokenizer, token.token));
    return out + "}";
  };
  const auto write = [&](const engine::Logprobs& rated) {
    std::string out = "{" + entry(rated.token, rated.rank);
    for (size_t i = 0; i < rated.top.size(); ++i) {
      if (rated.top[i].token == rated.token.token) continue;
      out += "," + entry(rated.top[i], static_cast<int64_t>(i) + 1);
    }
    return out + "}";
  };
  const auto& rated = prompts_[prompt].rated;
  return ",\"prompt_logprobs\":[null" + std::string(rated.empty() ? "" : ",") +
         join(rated, ",", write) + "]";
}

}  // namespace dmc::server
