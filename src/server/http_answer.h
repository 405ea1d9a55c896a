// An answer between the thread that makes it and the session that writes it out.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "server/http.h"
#include "server/http_async.h"

namespace dmc::server {

// What a session writes next.
struct Portion {
  std::optional<HttpResponse> response;
  std::optional<Headers> events;  // they begin
  std::string data;
  bool finished = false, given_up = false;

  bool empty() const { return !response && !events && data.empty() && !finished && !given_up; }
};

// Filled by the thread that answers, emptied by the session. The session alone touches the timer,
// on its strand.
class Answer : public Exchange, public std::enable_shared_from_this<Answer> {
 public:
  // Given up once so many bytes wait to be written.
  Answer(asio::any_io_executor executor, size_t pending_bytes)
      : executor_(executor), wake_(executor), pending_bytes_(pending_bytes) {}

  void respond(HttpResponse response) override;
  void begin_events(Headers headers) override;
  bool write(std::string_view events) override;
  void finish() override;
  void when_gone(std::function<void()> callback) override;

  // For the session: what has come since it last asked.
  Portion take();
  // Until there is something, `most` at most.
  awaitable<void> wait(milliseconds most);
  // The session is over; a callback that still waits is called if the client left early.
  void close(bool early);

 private:
  template <class Change>
  void change(Change apply);

  asio::any_io_executor executor_;
  asio::steady_timer wake_;
  size_t pending_bytes_;
  std::mutex mutex_;
  Portion next_;
  bool gone_ = false, finished_ = false;
  std::function<void()> when_gone_;
};

}  // namespace dmc::server
