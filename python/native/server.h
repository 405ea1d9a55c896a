// The program's HTTP server on the engine of an LLM.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine.h"
#include "server/api.h"
#include "server/http_server.h"

namespace dmc::python {

struct ServerOptions {
  std::string host;
  uint16_t port = 0;                     // 0: any that is free
  std::vector<std::string> keys, hosts;  // hosts: further names that requests may have for it
  std::string name;                      // of the model; empty: its folder's
  bool insecure = false, page = true;
};

class Server {
 public:
  // Serves from now on, on threads of its own. Errors as HttpServer has, and if others than this
  // machine are let in without a key. `engine` must outlive it.
  Server(Engine& engine, const ServerOptions& options);
  ~Server();

  uint16_t port() const { return port_; }
  const std::string& name() const { return heard_->model.id; }
  // What runs is finished, in half a minute at most; for the second time: ends at once.
  void stop() { http_->stop(); }
  bool wait(double seconds);  // whether it has ended

 private:
  // What requests refer to until the engine has let go of them.
  struct Heard {
    Heard(Engine& engine, const ServerOptions& options);
    server::ServedModel model;
    std::unique_ptr<server::Api> api;
  };
  void run();

  Engine& engine_;
  std::shared_ptr<Heard> heard_;
  std::shared_ptr<server::HttpServer> http_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace dmc::python
