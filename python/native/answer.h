// What comes of a request: the engine's thread puts events in, a Python thread takes them out.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/stop_strings.h"
#include "text/tokenizer.h"

namespace dmc::python {

// What a request asks for beside its tokens.
struct Asked {
  engine::RequestOptions request;
  std::vector<std::string> stop;
  bool keep_stop = false;    // the stop string stays in the text
  bool ignore_eos = false;   // go on behind what ends a text
  bool chat = false;         // what ends a reply ends the text, too
  bool skip_special = true;  // control tokens are not shown
};

// What a text has in the cache.
struct Kv {
  int64_t seen = 0;
  std::vector<int64_t> slots;  // [layers * kv_heads]
  int64_t bytes = 0;
};

// Something that happened to one choice of a request, or to its prompt.
struct Event {
  int64_t choice = 0;
  std::string text;
  std::optional<int32_t> token;
  std::optional<engine::Logprobs> logprobs;
  std::string finish_reason;               // "": it goes on
  std::optional<std::string> stop_string;  // that ended it
  std::optional<int32_t> stop_token;
  Kv kv;  // with a finish_reason
  std::vector<engine::Logprobs> prompt_logprobs;
};

class Answer : public engine::RequestListener {
 public:
  // `bytes`: what so many slots of a KV head take. `tokenizer` must outlive it.
  Answer(const text::Tokenizer& tokenizer, Asked asked, std::function<int64_t(int64_t)> bytes);

  void prompt_rated(std::span<const engine::Logprobs> rows) override;
  bool token(int64_t choice, const engine::WrittenToken& written) override;
  void ended(int64_t choice, const engine::Ending& ending) override;
  void failed(const Error& error) override;

  // What has happened since the last call; waits so many seconds at most for something to. Throws
  // what the request failed with, once all that came before has been taken.
  std::vector<Event> take(double seconds);
  bool done() const;  // all choices have ended, and everything has been taken

 private:
  struct Choice {
    text::StreamDecoder decoder;
    engine::StopStrings stops;
  };
  void put(Event event);

  const text::Tokenizer& tokenizer_;
  const Asked asked_;
  const std::function<int64_t(int64_t)> bytes_;
  std::vector<Choice> choices_;  // of the engine's thread
  mutable std::mutex mutex_;     // guards what follows
  std::condition_variable changed_;
  std::vector<Event> events_;
  std::optional<Error> error_;
  int64_t open_;  // choices that go on
};

}  // namespace dmc::python
