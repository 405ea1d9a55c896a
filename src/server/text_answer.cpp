#include "server/text_answer.h"

#include <ctime>
#include <iostream>

#include "base/rng.h"
#include "server/api_error.h"

namespace dmc::server {
namespace {

std::string new_id(const char* prefix) {
  static std::atomic<uint64_t> count = 0;
  static const auto start = static_cast<uint64_t>(std::time(nullptr));
  char text[40];
  std::snprintf(text, sizeof(text), "%s-%016llx", prefix,
                static_cast<unsigned long long>(mix64(start ^ mix64(++count))));
  return text;
}

std::vector<double> ratios_by_layer(const engine::CacheUse& use, int64_t layers) {
  std::vector<double> ratios;
  if (use.slots.empty() || use.tokens == 0) return ratios;
  const auto heads = static_cast<int64_t>(use.slots.size()) / layers;
  for (int64_t layer = 0; layer < layers; ++layer) {
    int64_t slots = 0;
    for (int64_t h = 0; h < heads; ++h) slots += use.slots[static_cast<size_t>(layer * heads + h)];
    ratios.push_back(static_cast<double>(use.tokens * heads) / static_cast<double>(slots));
  }
  return ratios;
}

}  // namespace

class TextAnswer::Listener : public engine::RequestListener {
 public:
  Listener(std::shared_ptr<TextAnswer> answer, size_t prompt)
      : answer_(std::move(answer)), prompt_(prompt) {}
  void admitted(int64_t cached) override { answer_->admitted(prompt_, cached); }
  void prompt_rated(std::span<const engine::Logprobs> rows) override {
    answer_->prompt_rated(prompt_, rows);
  }
  bool token(int64_t choice, const engine::WrittenToken& token) override {
    return answer_->token(prompt_, choice, token);
  }
  void ended(int64_t choice, const engine::Ending& ending) override {
    answer_->ended(prompt_, choice, ending);
  }
  void failed(const Error& error) override { answer_->failed(error); }

 private:
  std::shared_ptr<TextAnswer> answer_;
  size_t prompt_;
};

TextAnswer::TextAnswer(TextRequest request, std::shared_ptr<Exchange> exchange,
                       const ServedModel& model, Metrics& metrics, Headers headers)
    : request_(std::move(request)),
      exchange_(std::move(exchange)),
      model_(model),
      metrics_(metrics),
      headers_(std::move(headers)),
      id_(new_id(chat() ? "chatcmpl" : "cmpl")),
      created_(static_cast<int64_t>(std::time(nullptr))) {
  request_.engine.report_cache = request_.usage_in_each;
  for (size_t i = 0; i < request_.prompts.size(); ++i) {
    Prompt prompt;
    for (int64_t c = 0; c < request_.engine.choices; ++c) {
      prompt.choices.push_back(
          {TextWriter(model.tokenizer, request_.skip_special, /*continues=*/!request_.echo)});
    }
    prompts_.push_back(std::move(prompt));
    open_choices_ += request_.engine.choices;
  }
}

void TextAnswer::start(engine::EngineLoop& engine) {
  std::vector<std::shared_ptr<engine::Request>> requests;
  for (size_t i = 0; i < request_.prompts.size(); ++i) {
    requests.push_back(std::make_shared<engine::Request>(
        request_.prompts[i], request_.engine, std::make_shared<Listener>(shared_from_this(), i)));
    asked_.push_back(requests.back());
  }
  engine.submit(std::move(requests));
  exchange_->when_gone([self = weak_from_this()] {
    if (const auto answer = self.lock()) answer->cancel();
  });
}

void TextAnswer::cancel() {
  for (const auto& asked : asked_) {
    if (const auto request = asked.lock()) request->cancel();
  }
}

void TextAnswer::admitted(size_t prompt, int64_t cached) {
  prompts_[prompt].cached = cached;
  metrics_.observe(Timing::kQueue, since_.seconds());
  metrics_.observe(Timing::kPromptTokens, static_cast<double>(request_.prompts[prompt].size()));
  if (!request_.stream || streaming_) return;
  streaming_ = true;
  metrics_.count_answer(200);
  exchange_->begin_events(headers_);
}

void TextAnswer::prompt_rated(size_t prompt, std::span<const engine::Logprobs> rows) {
  auto& rated = prompts_[prompt].rated;
  rated.insert(rated.end(), rows.begin(), rows.end());
}

// Before a choice's first token: its prompt, or who speaks.
void TextAnswer::begin(size_t prompt, Choice& choice) {
  if (std::exchange(choice.begun, true)) return;
  if (request_.echo) echo(prompt, choice);
  if (request_.engine.rules.min_tokens == 0) {
    choice.writer.set_stops(request_.stops, request_.keep_stop);
  }
  if (!streaming_ || !chat()) return;
  const auto index = static_cast<int64_t>(&choice - prompts_[prompt].choices.data());
  send(delta("{\"role\":\"assistant\",\"content\":\"\"}", prompt, index,
             ",\"logprobs\":null,\"finish_reason\":null"));
}

void TextAnswer::echo(size_t prompt, Choice& choice) {
  const std::vector<int32_t>& tokens = request_.prompts[prompt];
  const auto& rated = prompts_[prompt].rated;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (request_.engine.logprobs) {
      std::optional<engine::Logprobs> logprobs;
      if (i > 0) logprobs = rated.at(i - 1);
      choice.rated.push_back({tokens[i], std::move(logprobs), choice.writer.offset()});
    }
    choice.text += choice.writer.push(tokens[i]);
  }
}

bool TextAnswer::token(size_t prompt, int64_t index, const engine::WrittenToken& token) {
  Choice& choice = prompts_[prompt].choices[static_cast<size_t>(index)];
  begin(prompt, choice);
  const double now = since_.seconds();
  if (choice.tokens == 0) {
    if (index == 0) metrics_.observe(Timing::kFirstToken, now);
  } else {
    metrics_.observe(Timing::kBetweenTokens, now - choice.last_token);
  }
  choice.last_token = now;
  ++choice.tokens;
  if (token.cache) choice.cache = *token.cache;
  if (token.logprobs) choice.rated.push_back({token.token, token.logprobs, choice.writer.offset()});
  if (request_.token_ids) choice.ids.push_back(token.token);
  if (!token.stop || request_.keep_stop) choice.text += choice.writer.push(token.token);
  const bool enough = choice.writer.stop().has_value();
  if (choice.tokens == request_.engine.rules.min_tokens) {
    choice.writer.set_stops(request_.stops, request_.keep_stop);
  }
  if (streaming_ && !token.last && !enough) send_choice(prompt, index);
  return enough;
}

void TextAnswer::ended(size_t prompt, int64_t index, const engine::Ending& ending) {
  Choice& choice = prompts_[prompt].choices[static_cast<size_t>(index)];
  begin(prompt, choice);
  choice.text += choice.writer.finish();
  choice.over = true;
  choice.cache = ending.cache;
  const auto& eos = chat() ? model_.reply_ids : model_.eos_ids;
  const bool stopped = ending.reason == engine::FinishReason::kStop || choice.writer.stop();
  choice.finish_reason = stopped ? "stop" : "length";
  if (choice.writer.stop()) {
    choice.stop_reason = nlohmann::json(*choice.writer.stop()).dump();
  } else if (ending.stop_token && std::ranges::find(eos, *ending.stop_token) == eos.end()) {
    choice.stop_reason = std::to_string(*ending.stop_token);
  }
  metrics_.observe(Timing::kWrittenTokens, static_cast<double>(choice.tokens));
  metrics_.count_ratio(ratios_by_layer(ending.cache, std::max<int64_t>(1, model_.layers)));
  if (streaming_) send_choice(prompt, index);
  if (--open_choices_ == 0) complete();
}

void TextAnswer::complete() {
  over_ = true;
  metrics_.observe(Timing::kRequest, since_.seconds());
  if (streaming_) {
    if (request_.include_usage) {
      send(head(true) + ",\"choices\":[],\"usage\":" + usage() + "}");
    }
    send("[DONE]");
    return exchange_->finish();
  }
  std::string body = head(false) + ",\"choices\":[";
  for (size_t p = 0; p < prompts_.size(); ++p) {
    for (int64_t c = 0; c < request_.engine.choices; ++c) {
      if (choice_index(p, c) > 0) body += ",";
      body += choice_json(p, c, false);
    }
  }
  body += "],\"usage\":" + usage() + "}";
  metrics_.count_answer(200);
  exchange_->respond({200, std::move(body), "application/json", headers_});
}

void TextAnswer::failed(const Error& error) {
  if (std::exchange(over_, true)) return;
  cancel();  // the other prompts
  ApiError answer = api_error(error);
  answer.headers.insert(answer.headers.end(), headers_.begin(), headers_.end());
  if (answer.status == 500) std::cerr << "dmc: request " << id_ << ": " << error.what() << "\n";
  if (!streaming_) {
    metrics_.count_answer(answer.status);
    return exchange_->respond(error_response(answer));
  }
  send(error_body(answer));
  exchange_->finish();
}

void TextAnswer::send(const std::string& event) {
  if (!exchange_->write("data: " + event + "\n\n")) cancel();
}

void TextAnswer::send_choice(size_t prompt, int64_t index) {
  Choice& choice = prompts_[prompt].choices[static_cast<size_t>(index)];
  if (chat()) {
    const bool silent = choice.over && choice.text.empty() && choice.rated.empty();
    if (!silent) {
      const std::string content = choice_json(prompt, index, true);
      send(content);
    }
    if (!choice.over) return;
    send(delta("{}", prompt, index,
               ",\"logprobs\":null,\"finish_reason\":\"" + choice.finish_reason +
                   "\",\"stop_reason\":" + choice.stop_reason));
    return;
  }
  send(choice_json(prompt, index, true));
}

int64_t TextAnswer::choice_index(size_t prompt, int64_t choice) const {
  return static_cast<int64_t>(prompt) * request_.engine.choices + choice;
}

}  // namespace dmc::server
