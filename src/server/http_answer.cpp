#include "server/http_answer.h"

#include <utility>

namespace dmc::server {

template <class Change>
void Answer::change(Change apply) {
  {
    const std::lock_guard lock(mutex_);
    if (gone_ || finished_) return;
    apply();
    finished_ = next_.finished || next_.given_up;
  }
  asio::post(executor_, [self = shared_from_this()] { self->wake_.cancel(); });
}

void Answer::respond(HttpResponse response) {
  change([&] {
    next_.response = std::move(response);
    next_.finished = true;
  });
}

void Answer::begin_events(Headers headers) {
  change([&] { next_.events = std::move(headers); });
}

bool Answer::write(std::string_view events) {
  bool alive = false;
  change([&] {
    next_.data += events;
    next_.given_up = next_.data.size() > pending_bytes_;
    alive = !next_.given_up;
  });
  return alive;
}

void Answer::finish() {
  change([&] { next_.finished = true; });
}

void Answer::when_gone(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!gone_) {
      when_gone_ = std::move(callback);
      return;
    }
  }
  callback();
}

Portion Answer::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(next_, {});
}

awaitable<void> Answer::wait(milliseconds most) {
  wake_.expires_after(most);
  co_await wake_.async_wait(kTuple);
}

void Answer::close(bool early) {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    gone_ = true;
    callback = std::exchange(when_gone_, nullptr);
  }
  if (early && callback) callback();
}

}  // namespace dmc::server
