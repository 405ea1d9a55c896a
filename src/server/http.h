// What the API sees of HTTP: requests that have arrived whole, and ways to answer them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dmc::server {

struct HttpRequest {
  std::string method, path, query;  // path as it came, without query
  std::string body;
  // Headers; empty where there is none.
  std::string host, authorization, content_type, content_encoding, request_id;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

struct HttpResponse {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  Headers headers = {};
};

// The answer to one request: respond(), or begin_events(), write()s and finish(). Any thread;
// nothing waits for the client. What comes too late is dropped.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void respond(HttpResponse response) = 0;
  virtual void begin_events(Headers headers) = 0;  // an answer of server-sent events, status 200
  // Whether there is still anybody: a client that reads too slowly is given up like one that left.
  virtual bool write(std::string_view events) = 0;
  virtual void finish() = 0;
  // Called once if the client leaves before its answer is complete; at once if it has left.
  virtual void when_gone(std::function<void()> callback) = 0;
};

using HttpHandler = std::function<void(HttpRequest, std::shared_ptr<Exchange>)>;

}  // namespace dmc::server
