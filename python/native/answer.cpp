#include "answer.h"

#include <chrono>

namespace dmc::python {

Answer::Answer(const text::Tokenizer& tokenizer, Asked asked, std::function<int64_t(int64_t)> bytes)
    : tokenizer_(tokenizer),
      asked_(std::move(asked)),
      bytes_(std::move(bytes)),
      open_(asked_.request.choices) {
  for (int64_t i = 0; i < open_; ++i) {
    choices_.push_back({text::StreamDecoder(tokenizer, /*continues=*/!asked_.chat),
                        engine::StopStrings(asked_.stop, asked_.keep_stop)});
  }
}

void Answer::prompt_rated(std::span<const engine::Logprobs> rows) {
  Event event;
  event.prompt_logprobs.assign(rows.begin(), rows.end());
  put(std::move(event));
}

bool Answer::token(int64_t choice, const engine::WrittenToken& written) {
  if (written.stop) return false;
  Choice& c = choices_[static_cast<size_t>(choice)];
  Event event;
  event.choice = choice;
  event.token = written.token;
  event.logprobs = written.logprobs;
  if (!asked_.skip_special || !tokenizer_.is_special(written.token)) {
    event.text = c.stops.push(c.decoder.push(written.token));
  }
  put(std::move(event));
  return c.stops.found().has_value();
}

void Answer::ended(int64_t choice, const engine::Ending& ending) {
  Choice& c = choices_[static_cast<size_t>(choice)];
  Event event;
  event.choice = choice;
  if (!c.stops.found()) {
    event.text = c.stops.push(c.decoder.finish());
    if (!c.stops.found()) event.text += c.stops.finish();
  }
  event.stop_string = c.stops.found();
  event.stop_token = ending.stop_token;
  const bool stopped = event.stop_string || ending.reason == engine::FinishReason::kStop;
  event.finish_reason = stopped ? "stop" : "length";
  event.kv = {ending.cache.tokens, ending.cache.slots, 0};
  for (const int64_t slots : event.kv.slots) event.kv.bytes += bytes_(slots);
  put(std::move(event));
}

void Answer::failed(const Error& error) {
  const std::lock_guard lock(mutex_);
  error_ = error;
  open_ = 0;
  changed_.notify_all();
}

std::vector<Event> Answer::take(double seconds) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, std::chrono::duration<double>(seconds),
                    [this] { return !events_.empty() || open_ == 0; });
  if (events_.empty() && error_) throw Error(*error_);
  return std::exchange(events_, {});
}

bool Answer::done() const {
  const std::lock_guard lock(mutex_);
  return open_ == 0 && events_.empty() && !error_;
}

void Answer::put(Event event) {
  const std::lock_guard lock(mutex_);
  if (!event.finish_reason.empty()) --open_;
  events_.push_back(std::move(event));
  changed_.notify_all();
}

}  // namespace dmc::python
