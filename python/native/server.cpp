#include "server.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "module.h"
#include "server/model_folder.h"

namespace dmc::python {
namespace {

namespace nb = nanobind;
using namespace nb::literals;

server::ServedModel served_model(Engine& engine, const std::string& name) {
  const model::ModelConfig& config = engine.config();
  server::ServedModel model = server::model_in(engine.path(), name, engine.context(),
                                               config.vocab_size, config.eos_token_ids);
  model.policy = engine.policy();
  model.slot_type = engine.options().kv;
  model.layers = config.num_layers;
  model.kv_heads = config.num_kv_heads;
  model.slot_bytes = static_cast<double>(engine.page_bytes()) / kPageSlots;
  return model;
}

server::HttpOptions http_options(const ServerOptions& options) {
  if (!server::is_loopback(options.host) && !options.insecure && options.keys.empty()) {
    throw invalid_argument("host", options.host +
                                       " lets others in; give them a key (api_keys), or say "
                                       "insecure=True");
  }
  if (std::ranges::count(options.keys, "") > 0) {
    throw invalid_argument("api_keys", "has an empty key, which everybody would know");
  }
  server::HttpOptions http;
  http.address = options.host;
  http.port = options.port;
  http.signals = false;  // they are Python's
  return http;
}

}  // namespace

Server::Heard::Heard(Engine& engine, const ServerOptions& options)
    : model(served_model(engine, options.name)) {}

Server::Server(Engine& engine, const ServerOptions& options)
    : engine_(engine), heard_(std::make_shared<Heard>(engine, options)) {
  http_ = std::make_shared<server::HttpServer>(
      http_options(options), [heard = heard_](server::HttpRequest request, const auto& exchange) {
        heard->api->handle(std::move(request), exchange);
      });
  port_ = http_->port();
  server::ApiOptions api{options.keys, server::allowed_hosts(options.host, options.hosts)};
  api.version = DMC_VERSION;
  api.page_bytes = static_cast<double>(engine.page_bytes());
  api.connections = [http = http_.get()] { return static_cast<int64_t>(http->connections()); };
  api.page = options.page;
  heard_->api = std::make_unique<server::Api>(heard_->model, engine.loop(), std::move(api));
  engine.keep(heard_);
  thread_ = std::thread([this] { run(); });
}

Server::~Server() {
  if (!wait(0)) stop();
  if (!wait(0)) stop();
  thread_.join();
  if (http_->busy() > 0) engine_.keep(http_);  // answers still come, and are dropped
}

void Server::run() {
  http_->run([this] { heard_->api->drain(); });
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

bool Server::wait(double seconds) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return ended_; });
}

namespace {

void construct(Server* self, Engine& engine, const std::string& host, int64_t port,
               const std::vector<std::string>& keys, const std::vector<std::string>& hosts,
               const std::string& name, bool insecure, bool page) {
  if (port < 0 || port > 65535) {
    throw invalid_argument("port", "expected 0 to 65535, found " + std::to_string(port));
  }
  const nb::gil_scoped_release opening;
  new (self) Server(engine, {host, static_cast<uint16_t>(port), keys, hosts, name, insecure, page});
}

}  // namespace

void add_server(nb::module_& module) {
  using Released = nb::call_guard<nb::gil_scoped_release>;
  nb::class_<Server>(module, "Server")
      .def("__init__", &construct, nb::keep_alive<1, 2>(), "engine"_a, nb::kw_only(), "host"_a,
           "port"_a, "keys"_a, "hosts"_a, "name"_a, "insecure"_a, "page"_a)
      .def("stop", &Server::stop, Released())
      .def("wait", &Server::wait, "seconds"_a, Released())
      .def_prop_ro("port", &Server::port)
      .def_prop_ro("name", &Server::name);
}

}  // namespace dmc::python
