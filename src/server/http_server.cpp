#include "server/http_server.h"

#include <thread>
#include <vector>

#include "base/error.h"
#include "server/http_session.h"

namespace dmc::server {
namespace {

using tcp = asio::ip::tcp;

awaitable<void> listen(asio::io_context& io, tcp::acceptor& acceptor, HttpShared& shared) {
  while (acceptor.is_open()) {
    auto [error, socket] = co_await acceptor.async_accept(asio::make_strand(io), kTuple);
    if (error == asio::error::operation_aborted) co_return;
    if (error) {  // out of file descriptors, perhaps
      co_await sleep(milliseconds(100));
      continue;
    }
    socket.set_option(tcp::no_delay(true), error);
    const auto strand = socket.get_executor();
    asio::co_spawn(strand, serve_session(std::move(socket), shared), asio::detached);
  }
}

}  // namespace

struct HttpServer::Impl {
  asio::io_context io;
  HttpShared shared;
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

size_t HttpServer::busy() const { return impl_->shared.busy; }

void HttpServer::run(const std::function<void()>& draining) {
  Impl& impl = *impl_;
  impl.on_draining = draining;
  if (impl.shared.options.signals) {
    impl.signals.add(SIGINT);
    impl.signals.add(SIGTERM);
    impl.wait_for_signal();
  }
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
