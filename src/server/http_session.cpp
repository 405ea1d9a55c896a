#include "server/http_session.h"

#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <optional>
#include <string>
#include <vector>

#include "server/http_answer.h"

namespace dmc::server {
namespace {

namespace http = beast::http;
using namespace asio::experimental::awaitable_operators;
using Parser = http::request_parser<http::string_body>;

HttpResponse refusal(int status, const std::string& message) {
  return {status, "{\"error\":{\"message\":\"" + message +
                      "\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}"};
}

class Counted {
 public:
  explicit Counted(std::atomic<size_t>& count) : count_(count) { ++count_; }
  ~Counted() { --count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<size_t>& count_;
};

class Session {
 public:
  Session(StreamSocket socket, HttpShared& shared) : socket_(std::move(socket)), shared_(shared) {}

  awaitable<void> run() {
    const Counted counted(shared_.connections);
    if (shared_.connections > shared_.options.connections) {
      co_await send(refusal(503, "too many connections"), false, true);
    } else {
      while (!shared_.draining && co_await exchange()) {
      }
    }
    co_await close();
  }

 private:
  // One request and its answer. Whether the connection goes on.
  awaitable<bool> exchange() {
    Parser parser;
    parser.header_limit(static_cast<uint32_t>(shared_.options.header_bytes));
    parser.body_limit(shared_.options.body_bytes);
    if (!co_await read_header(parser)) co_return false;
    const Counted busy(shared_.busy);
    if (!co_await read_body(parser)) co_return false;
    const bool keep = parser.get().keep_alive() && !shared_.draining;
    head_ = parser.get().method() == http::verb::head;
    version_ = parser.get().version();
    const auto answer =
        std::make_shared<Answer>(co_await asio::this_coro::executor, shared_.options.pending_bytes);
    shared_.handler(take_request(parser), answer);
    const auto done = co_await (pump(*answer, keep) || watch());
    const bool complete = done.index() == 0 && std::get<0>(done) != Outcome::kBroken;
    answer->close(!complete);
    co_return complete&& keep&& std::get<0>(done) == Outcome::kGoOn;
  }

  awaitable<bool> read_header(Parser& parser) {
    const HttpOptions& o = shared_.options;
    if (buffer_.size() == 0) {
      const auto idle =
          co_await within(o.idle_time, socket_.async_wait(StreamSocket::wait_read, kTuple));
      if (idle) co_return false;
    }
    const auto error =
        co_await within(o.header_time, http::async_read_header(socket_, buffer_, parser, kTuple));
    if (error) {
      co_await refuse(error);
      co_return false;
    }
    const auto& fields = parser.get();
    if (static_cast<size_t>(std::distance(fields.begin(), fields.end())) > o.headers) {
      co_await send(refusal(431, "too many header fields"), false);
      co_return false;
    }
    if (ambiguous(fields)) {
      co_await refuse(http::error::bad_field);
      co_return false;
    }
    co_return true;
  }

  // What Beast lets pass, and a proxy before us may read in another way (RFC 9112, 3.2 and 6.1).
  static bool ambiguous(const Parser::value_type& request) {
    const auto codings = request.count(http::field::transfer_encoding);
    const bool chunked =
        codings == 1 && beast::iequals(request[http::field::transfer_encoding], "chunked");
    const auto hosts = request.count(http::field::host);
    return (codings > 0 && !chunked) || hosts > 1 || (hosts == 0 && request.version() >= 11);
  }

  awaitable<bool> read_body(Parser& parser) {
    if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await asio::async_write(socket_, asio::buffer(kContinue), kTuple);
    }
    if (parser.is_done()) co_return true;
    const auto error = co_await within(shared_.options.body_time,
                                       http::async_read(socket_, buffer_, parser, kTuple));
    if (error) co_await refuse(error);
    co_return !error;
  }

  // Answers what could not be read, where there is still somebody to read that.
  awaitable<void> refuse(beast::error_code error) {
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      co_await send(refusal(431, "the header is too large"), false);
    } else if (error == http::error::body_limit) {
      co_await send(refusal(413, "the body has more than " +
                                     std::to_string(shared_.options.body_bytes) + " bytes"),
                    false);
    } else if (error == asio::error::timed_out) {
      co_await send(refusal(408, "the request did not come in time"), false);
    } else if (error != http::error::end_of_stream && error != http::error::partial_message &&
               error.category() == beast::error_code(http::error::bad_version).category()) {
      co_await send(refusal(400, "this is not HTTP/1.1 as RFC 9112 has it"), false);
    }
  }

  static HttpRequest take_request(Parser& parser) {
    http::request<http::string_body> request = parser.release();
    const std::string target(request.target());
    const size_t mark = target.find('?');
    const auto field = [&](auto name) { return std::string(request[name]); };
    return {std::string(request.method_string()),
            target.substr(0, mark),
            mark == std::string::npos ? "" : target.substr(mark + 1),
            std::move(request.body()),
            field(http::field::host),
            field(http::field::authorization),
            field(http::field::content_type),
            field(http::field::content_encoding),
            field("x-request-id")};
  }

  enum class Outcome { kGoOn, kClose, kBroken };

  // Writes the answer as it comes.
  awaitable<Outcome> pump(Answer& answer, bool keep) {
    bool streams = false;
    for (;;) {
      Portion next = answer.take();
      if (next.empty()) {
        co_await answer.wait(shared_.options.ping_time);
        next = answer.take();
        if (next.empty() && streams) next.data = ": ping\n\n";
      }
      if (next.response) {
        co_return co_await send(*next.response, keep) ? (keep ? Outcome::kGoOn : Outcome::kClose)
                                                      : Outcome::kBroken;
      }
      if (next.events) {
        streams = true;
        if (!co_await send_stream_header(*next.events, keep)) co_return Outcome::kBroken;
      }
      if (next.given_up) co_return Outcome::kBroken;
      if (!next.data.empty() && !co_await send_chunk(next.data)) co_return Outcome::kBroken;
      if (next.finished) co_return co_await end_stream(keep);
    }
  }

  // Ends when the client has left. A readable socket may also be its next request, so a byte is
  // looked at; then whether it leaves shows when we write.
  awaitable<void> watch() {
    co_await socket_.async_wait(StreamSocket::wait_read, kTuple);
    char byte;
    beast::error_code error;
    socket_.non_blocking(true, error);
    const size_t got = socket_.receive(asio::buffer(&byte, 1), StreamSocket::message_peek, error);
    if (got == 0 && error != asio::error::would_block) co_return;
    asio::steady_timer never(co_await asio::this_coro::executor,
                             asio::steady_timer::time_point::max());
    co_await never.async_wait(use_awaitable);
  }

  template <class Message>
  void decorate(Message& message, const Headers& headers, bool keep) const {
    message.set(http::field::server, "dmc");
    for (const auto& [name, value] : headers) message.set(name, value);
    message.keep_alive(keep);
  }

  awaitable<bool> send(const HttpResponse& response, bool keep, bool briefly = false) {
    http::response<http::string_body> message{static_cast<http::status>(response.status), version_};
    message.set(http::field::content_type, response.content_type);
    decorate(message, response.headers, keep);
    message.content_length(response.body.size());
    if (!head_) message.body() = response.body;
    const milliseconds time = briefly ? milliseconds(1000) : shared_.options.write_time;
    http::response_serializer<http::string_body> serializer{message};
    const auto error =
        head_ ? co_await within(time, http::async_write_header(socket_, serializer, kTuple))
              : co_await within(time, http::async_write(socket_, serializer, kTuple));
    co_return !error;
  }

  bool chunked() const { return version_ >= 11; }

  awaitable<bool> send_stream_header(const Headers& headers, bool keep) {
    http::response<http::empty_body> message{http::status::ok, version_};
    message.set(http::field::content_type, "text/event-stream");
    message.set(http::field::cache_control, "no-cache");
    message.set("X-Accel-Buffering", "no");
    decorate(message, headers, keep && chunked());
    if (chunked()) message.chunked(true);
    http::response_serializer<http::empty_body> serializer{message};
    co_return !co_await within(shared_.options.write_time,
                               http::async_write_header(socket_, serializer, kTuple));
  }

  awaitable<bool> send_chunk(const std::string& data) {
    const milliseconds time = shared_.options.write_time;
    if (!chunked()) {
      co_return !co_await within(time, asio::async_write(socket_, asio::buffer(data), kTuple));
    }
    co_return !co_await within(
        time, asio::async_write(socket_, http::make_chunk(asio::buffer(data)), kTuple));
  }

  awaitable<Outcome> end_stream(bool keep) {
    if (!chunked()) co_return Outcome::kClose;
    const auto error = co_await within(shared_.options.write_time,
                                       asio::async_write(socket_, http::make_chunk_last(), kTuple));
    co_return error ? Outcome::kBroken : keep ? Outcome::kGoOn : Outcome::kClose;
  }

  // Reads on for a moment: closing a socket with unread bytes would take our answer back.
  awaitable<void> close() {
    beast::error_code ignored;
    socket_.shutdown(StreamSocket::shutdown_send, ignored);
    std::vector<char> rest(16 << 10);
    const auto end = std::chrono::steady_clock::now() + milliseconds(500);
    while (!ignored && std::chrono::steady_clock::now() < end) {
      ignored =
          co_await within(milliseconds(500), socket_.async_read_some(asio::buffer(rest), kTuple));
    }
    socket_.close(ignored);
  }

  StreamSocket socket_;
  HttpShared& shared_;
  beast::flat_buffer buffer_{128 << 10};
  bool head_ = false;
  unsigned version_ = 11;
};

}  // namespace

awaitable<void> serve_session(StreamSocket socket, HttpShared& shared) {
  Session session(std::move(socket), shared);
  try {
    co_await session.run();
  } catch (const std::exception&) {  // this connection's trouble alone
  }
}

}  // namespace dmc::server
