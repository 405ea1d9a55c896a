// The answer to one request for texts: hears the engine, writes JSON or server-sent events.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine_loop.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/text_request.h"
#include "server/text_writer.h"

namespace dmc::server {

class TextAnswer : public std::enable_shared_from_this<TextAnswer> {
 public:
  // What is not shared must outlive it.
  TextAnswer(TextRequest request, std::shared_ptr<Exchange> exchange, const ServedModel& model,
             Metrics& metrics, Headers headers);

  // Hands the prompts to the engine. Errors as those of EngineLoop::submit().
  void start(engine::EngineLoop& engine);

 private:
  class Listener;
  struct Rated {  // a token in a list of log-probabilities
    int32_t token;
    std::optional<engine::Logprobs> logprobs;
    int64_t offset;
  };
  struct Choice {
    TextWriter writer;
    std::string text = {};          // that was not sent yet
    std::vector<Rated> rated = {};  // likewise
    std::vector<int32_t> ids = {};  // likewise
    int64_t tokens = 0;
    bool begun = false, over = false;
    std::string finish_reason = {}, stop_reason = "null";
    double last_token = 0.0;  // when, in seconds since the request's arrival
    engine::CacheUse cache = {};
  };
  struct Prompt {
    std::vector<engine::Logprobs> rated;  // of all tokens but the first
    int64_t cached = 0;
    std::vector<Choice> choices;
  };

  // Called by the engine's thread.
  void admitted(size_t prompt, int64_t cached);
  void prompt_rated(size_t prompt, std::span<const engine::Logprobs> rows);
  bool token(size_t prompt, int64_t choice, const engine::WrittenToken& token);
  void ended(size_t prompt, int64_t choice, const engine::Ending& ending);
  void failed(const Error& error);

  void cancel();
  void begin(size_t prompt, Choice& choice);
  void echo(size_t prompt, Choice& choice);
  void send(const std::string& event);
  void send_choice(size_t prompt, int64_t index);
  void complete();

  bool chat() const { return request_.endpoint == Endpoint::kChat; }
  int64_t choice_index(size_t prompt, int64_t choice) const;
  // JSON.
  std::string head(bool chunk) const;
  std::string usage() const;
  std::string cache_usage() const;
  std::string choice_json(size_t prompt, int64_t index, bool chunk);
  std::string delta(const std::string& fields, size_t prompt, int64_t index,
                    const std::string& rest) const;
  std::string logprobs_json(const std::vector<Rated>& rated) const;
  std::string completion_logprobs(const std::vector<Rated>& rated) const;
  std::string chat_logprobs(const std::vector<Rated>& rated) const;
  std::string prompt_logprobs_json(size_t prompt) const;

  TextRequest request_;
  std::shared_ptr<Exchange> exchange_;
  const ServedModel& model_;
  Metrics& metrics_;
  Headers headers_;
  std::string id_;
  int64_t created_;
  Stopwatch since_;
  std::vector<std::weak_ptr<engine::Request>> asked_;
  std::vector<Prompt> prompts_;
  int64_t open_choices_ = 0;
  bool streaming_ = false, over_ = false;
};

}  // namespace dmc::server
