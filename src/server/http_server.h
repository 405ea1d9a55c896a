// HTTP/1.1 on a few threads, with the limits that a server needs which strangers talk to.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/http.h"

namespace dmc::server {

struct HttpOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 8080;  // 0: any that is free
  int threads = 2;
  size_t header_bytes = 16 << 10, headers = 100, body_bytes = 8 << 20;
  size_t connections = 1024;
  size_t pending_bytes = 1 << 20;  // of a stream that its client has not read yet
  bool signals = true;             // SIGINT and SIGTERM end it
  std::chrono::milliseconds header_time{10000}, body_time{30000}, idle_time{75000},
      write_time{30000}, ping_time{15000}, drain_time{30000};
};

class HttpServer {
 public:
  // Listens from now on. Error(kInvalidArgument) if `address` is none, Error(kUnavailable) naming
  // the port if it is taken.
  HttpServer(const HttpOptions& options, HttpHandler handler);
  ~HttpServer();

  uint16_t port() const;
  size_t connections() const;  // open now
  size_t busy() const;         // of which requests are being answered
  // Serves until SIGINT or SIGTERM, if it looks for them, or stop(): then nobody is let in,
  // `draining` is called, and what runs is waited for, drain_time at most. A second signal or
  // stop() ends at once. Answers that come after run() has returned are dropped.
  void run(const std::function<void()>& draining);
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dmc::server
