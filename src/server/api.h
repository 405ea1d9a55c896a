// The server's endpoints: the OpenAI API and what surrounds it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine_loop.h"
#include "server/http.h"
#include "server/metrics.h"
#include "server/served_model.h"

namespace dmc::server {

struct ApiOptions {
  std::vector<std::string> keys;           // one of them must be shown; none: nobody is asked
  std::vector<std::string> allowed_hosts;  // that requests may name; none: any
  int64_t max_texts = 256;                 // prompts times choices of a request
  std::string version;
  double page_bytes = 0.0;                                  // of the cache
  std::function<int64_t()> connections = [] { return 0; };  // open now
  bool page = true;                                         // the web page at /
};

class Api {
 public:
  // Both must outlive it.
  Api(const ServedModel& model, engine::EngineLoop& engine, ApiOptions options);

  // Answers, or sees to it that the engine does. Any thread.
  void handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange);
  void drain() { draining_ = true; }  // health checks fail from now on

 private:
  struct Call;
  struct Route;
  static std::span<const Route> routes();

  const Route& find_route(const Call& call) const;
  void guard(const Call& call, const Route& route) const;
  void check_body(const Call& call) const;

  void completions(Call& call);
  void chat(Call& call);
  void texts(Call& call, int endpoint);
  void models(Call& call);
  void model(Call& call);
  void tokenize(Call& call);
  void detokenize(Call& call);
  void tokenizer_info(Call& call);
  void health(Call& call);
  void live(Call& call);
  void version(Call& call);
  void metrics(Call& call);
  void openapi(Call& call);
  void page(Call& call);

  const ServedModel& model_;
  engine::EngineLoop& engine_;
  ApiOptions options_;
  Metrics metrics_;
  std::atomic<bool> draining_ = false;
};

// Whether `shown` is one of `keys`, in a time that tells nothing about them.
bool is_key(std::string_view shown, const std::vector<std::string>& keys);

// The OpenAPI description of all this.
std::string openapi_json(const ServedModel& model, const std::string& version);

}  // namespace dmc::server
