#include "server/http_server.h"

#include <boost/asio.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <atomic>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "base/error.h"

namespace dmc::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::awaitable;
using asio::use_awaitable;
using tcp = asio::ip::tcp;
using namespace asio::experimental::awaitable_operators;
using std::chrono::milliseconds;

constexpr auto kTuple = asio::as_tuple(use_awaitable);  // errors are values
using Parser = http::request_parser<http::string_body>;

awaitable<void> sleep(milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  co_await timer.async_wait(use_awaitable);
}

// The error of an operation, timed_out if it took longer.
template <class Operation>
awaitable<beast::error_code> within(milliseconds time, Operation operation) {
  const auto done = co_await (std::move(operation) || sleep(time));
  if (done.index() == 1) co_return asio::error::timed_out;
  co_return std::get<0>(std::get<0>(done));
}

HttpResponse refusal(int status, const std::string& message) {
  return {status, "{\"error\":{\"message\":\"" + message +
                      "\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}"};
}

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
  Answer(asio::any_io_executor executor, size_t pending_bytes)
      : executor_(executor), wake_(executor), pending_bytes_(pending_bytes) {}

  void respond(HttpResponse response) override {
    change([&] {
      next_.response = std::move(response);
      next_.finished = true;
    });
  }
  void begin_events(Headers headers) override {
    change([&] { next_.events = std::move(headers); });
  }
  bool write(std::string_view events) override {
    bool alive = false;
    change([&] {
      next_.data += events;
      next_.given_up = next_.data.size() > pending_bytes_;
      alive = !next_.given_up;
    });
    return alive;
  }
  void finish() override {
    change([&] { next_.finished = true; });
  }
  void when_gone(std::function<void()> callback) override {
    {
      const std::lock_guard lock(mutex_);
      if (!gone_) {
        when_gone_ = std::move(callback);
        return;
      }
    }
    callback();
  }

  Portion take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(next_, {});
  }
  awaitable<void> wait(milliseconds most) {
    wake_.expires_after(most);
    co_await wake_.async_wait(kTuple);
  }
  // The session is over; a callback that still waits is called if the client left early.
  void close(bool early) {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      gone_ = true;
      callback = std::exchange(when_gone_, nullptr);
    }
    if (early && callback) callback();
  }

 private:
  template <class Change>
  void change(Change apply) {
    {
      const std::lock_guard lock(mutex_);
      if (gone_ || finished_) return;
      apply();
      finished_ = next_.finished || next_.given_up;
    }
    asio::post(executor_, [self = shared_from_this()] { self->wake_.cancel(); });
  }

  asio::any_io_executor executor_;
  asio::steady_timer wake_;
  size_t pending_bytes_;
  std::mutex mutex_;
  Portion next_;
  bool gone_ = false, finished_ = false;
  std::function<void()> when_gone_;
};

struct Shared {
  HttpOptions options;
  HttpHandler handler;
  std::atomic<size_t> connections = 0, busy = 0;
  std::atomic<bool> draining = false;
};

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
  Session(tcp::socket socket, Shared& shared) : socket_(std::move(socket)), shared_(shared) {}

  awaitable<void> run() {
    const Counted counted(shared_.connections);
    beast::error_code ignored;
    socket_.set_option(tcp::no_delay(true), ignored);
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
          co_await within(o.idle_time, socket_.async_wait(tcp::socket::wait_read, kTuple));
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
    co_return true;
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
    co_await socket_.async_wait(tcp::socket::wait_read, kTuple);
    char byte;
    beast::error_code error;
    socket_.non_blocking(true, error);
    const size_t got = socket_.receive(asio::buffer(&byte, 1), tcp::socket::message_peek, error);
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
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
    std::vector<char> rest(16 << 10);
    const auto end = std::chrono::steady_clock::now() + milliseconds(500);
    while (!ignored && std::chrono::steady_clock::now() < end) {
      ignored =
          co_await within(milliseconds(500), socket_.async_read_some(asio::buffer(rest), kTuple));
    }
    socket_.close(ignored);
  }

  tcp::socket socket_;
  Shared& shared_;
  beast::flat_buffer buffer_{128 << 10};
  bool head_ = false;
  unsigned version_ = 11;
};

awaitable<void> serve(tcp::socket socket, Shared& shared) {
  Session session(std::move(socket), shared);
  try {
    co_await session.run();
  } catch (const std::exception&) {  // this connection's trouble alone
  }
}

awaitable<void> listen(asio::io_context& io, tcp::acceptor& acceptor, Shared& shared) {
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(asio::make_strand(io), kTuple);
    if (error == asio::error::operation_aborted) co_return;
    if (error) {  // out of file descriptors, perhaps
      co_await sleep(milliseconds(100));
      continue;
    }
    const auto strand = socket.get_executor();
    asio::co_spawn(strand, serve(std::move(socket), shared), asio::detached);
  }
}

}  // namespace

struct HttpServer::Impl {
  asio::io_context io;
  Shared shared;
  asio::strand<asio::io_context::executor_type> control = asio::make_strand(io);
  tcp::acceptor acceptor{control};
  asio::signal_set signals{control};
  std::function<void()> on_draining;

  void open() {
    const HttpOptions& o = shared.options;
    beast::error_code error;
    const auto address = asio::ip::make_address(o.address, error);
    if (error) {
      throw invalid_argument(
          "host", "\"" + o.address + "\" is no IP address; take 127.0.0.1, or 0.0.0.0 for all");
    }
    const tcp::endpoint endpoint(address, o.port);
    acceptor.open(endpoint.protocol());
    acceptor.set_option(asio::socket_base::reuse_address(true));
    acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      throw unavailable("port", std::to_string(o.port) + " on " + o.address + ": " +
                                    error.message() + "; take another");
    }
  }

  awaitable<void> drain() {
    if (shared.draining.exchange(true)) {  // for the second time
      io.stop();
      co_return;
    }
    beast::error_code ignored;
    acceptor.close(ignored);
    on_draining();
    const auto end = std::chrono::steady_clock::now() + shared.options.drain_time;
    while (shared.busy > 0 && std::chrono::steady_clock::now() < end) {
      co_await sleep(milliseconds(20));
    }
    co_await sleep(milliseconds(20));  // last bytes are on their way
    io.stop();
  }

  void start_drain() { asio::co_spawn(control, drain(), asio::detached); }

  void wait_for_signal() {
    signals.async_wait([this](beast::error_code error, int) {
      if (error) return;
      start_drain();
      wait_for_signal();
    });
  }
};

HttpServer::HttpServer(const HttpOptions& options, HttpHandler handler)
    : impl_(std::make_unique<Impl>()) {
  impl_->shared.options = options;
  impl_->shared.handler = std::move(handler);
  impl_->open();
}

HttpServer::~HttpServer() = default;

uint16_t HttpServer::port() const { return impl_->acceptor.local_endpoint().port(); }

size_t HttpServer::connections() const { return impl_->shared.connections; }

void HttpServer::run(const std::function<void()>& draining) {
  Impl& impl = *impl_;
  impl.on_draining = draining;
  impl.signals.add(SIGINT);
  impl.signals.add(SIGTERM);
  impl.wait_for_signal();
  asio::co_spawn(impl.control, listen(impl.io, impl.acceptor, impl.shared), asio::detached);
  std::vector<std::thread> threads;
  for (int i = 1; i < impl.shared.options.threads; ++i) {
    threads.emplace_back([&impl] { impl.io.run(); });
  }
  impl.io.run();
  for (std::thread& thread : threads) thread.join();
}

void HttpServer::stop() { impl_->start_drain(); }

}  // namespace dmc::server
