#include "server.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "module.h"
#include "text/generation_config.h"
#include "text/tokenizer/tokenizer_config.h"

namespace dmc::python {
namespace {

namespace nb = nanobind;
using namespace nb::literals;

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

// Pages in a browser may reach a server on this machine under any name; only ours are answered.
std::vector<std::string> allowed_hosts(const ServerOptions& options) {
  std::vector<std::string> hosts = options.hosts;
  if (!hosts.empty() || is_loopback(options.host)) {
    hosts.insert(hosts.end(), {"localhost", "127.0.0.1", "[::1]", options.host});
  }
  return hosts;
}

nlohmann::ordered_json tokenizer_info(const std::filesystem::path& dir,
                                      const server::ServedModel& model) {
  nlohmann::ordered_json info = nlohmann::ordered_json::object();
  const text::TokenizerConfig config = text::read_tokenizer_config(dir);
  if (!config.bos_token.empty()) info["bos_token"] = config.bos_token;
  std::string eos = config.eos_token;
  if (eos.empty() && !model.eos_ids.empty()) {
    eos = model.tokenizer.token_bytes(static_cast<int32_t>(model.eos_ids.front()));
  }
  info["eos_token"] = info["pad_token"] = eos;
  if (!config.unk_token.empty()) info["unk_token"] = config.unk_token;
  info["tokenizer_class"] = "dmc";
  return info;
}

std::string name_of(const std::filesystem::path& named) {
  return (std::filesystem::is_regular_file(named) ? named.stem() : named.filename()).string();
}

int64_t seconds_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

server::ServedModel served_model(Engine& engine, const std::string& name) {
  const model::ModelConfig& config = engine.config();
  const std::filesystem::path named = std::filesystem::weakly_canonical(engine.path());
  server::ServedModel model{name.empty() ? name_of(named) : name,
                            named.string(),
                            seconds_now(),
                            engine.context(),
                            config.vocab_size,
                            text::Tokenizer(engine.path(), config.vocab_size)};
  if (auto chat = text::ChatTemplate::find(engine.path())) model.chat.emplace(std::move(*chat));
  model.eos_ids = model.reply_ids = config.eos_token_ids;
  const auto stops = text::reply_stop_ids(engine.path(), model.tokenizer);
  model.reply_ids.insert(model.reply_ids.end(), stops.begin(), stops.end());
  model.tokenizer_info = tokenizer_info(engine.path(), model);
  model.policy = engine.policy();
  model.slot_type = engine.options().kv;
  model.layers = config.num_layers;
  model.kv_heads = config.num_kv_heads;
  model.slot_bytes = static_cast<double>(engine.page_bytes()) / kPageSlots;
  return model;
}

server::HttpOptions http_options(const ServerOptions& options) {
  if (!is_loopback(options.host) && !options.insecure && options.keys.empty()) {
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
  server::ApiOptions api{options.keys, allowed_hosts(options)};
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
