#include "server/api.h"

#include <algorithm>
#include <iostream>

#include "base/error.h"
#include "base/join.h"
#include "base/json.h"
#include "base/utf8.h"
#include "server/api_error.h"
#include "server/json_text.h"
#include "server/page.h"
#include "server/text_answer.h"

namespace dmc::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kLongestKey = 255;

// Printable and short, or nothing: it is written to logs and headers.
std::string clean_request_id(const std::string& id) {
  const auto fine = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.';
  };
  return id.size() <= 64 && std::ranges::all_of(id, fine) ? id : "";
}

// As routes name it: without /v1 and without a slash at its end.
std::string plain_path(std::string path) {
  if (path.starts_with("/v1/")) path.erase(0, 3);
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

std::string host_name(std::string host) {
  const size_t colon = host.rfind(':');
  const bool port = colon != std::string::npos && host.find(']', colon) == std::string::npos;
  return port ? host.substr(0, colon) : host;
}

json parse_body(const std::string& body) {
  try {
    return parse_json(body, "the body");
  } catch (const Error& error) {
    throw invalid_argument(error.what());
  }
}

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

[[noreturn]] void refuse(ApiError error) { throw error; }

}  // namespace

bool is_key(std::string_view shown, const std::vector<std::string>& keys) {
  unsigned found = 0;
  const auto at = [](std::string_view text, size_t i) {
    return i < text.size() ? static_cast<unsigned>(static_cast<unsigned char>(text[i])) : 256u;
  };
  for (const std::string& key : keys) {
    unsigned different = shown.size() > kLongestKey ? 1 : 0;
    for (size_t i = 0; i <= kLongestKey; ++i) different |= at(shown, i) ^ at(key, i);
    found |= different == 0 ? 1u : 0u;
  }
  return found != 0;
}

struct Api::Call {
  HttpRequest request;
  std::shared_ptr<Exchange> exchange;
  std::string path;
  Headers headers = {};

  void answer(HttpResponse response) const {
    response.headers.insert(response.headers.end(), headers.begin(), headers.end());
    exchange->respond(std::move(response));
  }
};

struct Api::Route {
  std::string_view method, path;  // a path with * at its end has more behind it
  void (Api::*answer)(Call&);
  bool open;  // to everybody
};

std::span<const Api::Route> Api::routes() {
  static constexpr Route kRoutes[] = {
      {"POST", "/completions", &Api::completions, false},
      {"POST", "/chat/completions", &Api::chat, false},
      {"GET", "/models", &Api::models, false},
      {"GET", "/models/*", &Api::model, false},
      {"POST", "/tokenize", &Api::tokenize, false},
      {"POST", "/detokenize", &Api::detokenize, false},
      {"GET", "/tokenizer_info", &Api::tokenizer_info, false},
      {"GET", "/metrics", &Api::metrics, false},
      {"GET", "/openapi.json", &Api::openapi, false},
      {"GET", "/version", &Api::version, false},
      {"GET", "/health", &Api::health, true},
      {"GET", "/livez", &Api::live, true},
      {"GET", "/", &Api::page, true},
  };
  return kRoutes;
}

Api::Api(const ServedModel& model, engine::EngineLoop& engine, ApiOptions options)
    : model_(model), engine_(engine), options_(std::move(options)) {
  for (const std::string& key : options_.keys) {
    if (key.empty() || key.size() > kLongestKey) {
      throw invalid_argument("api_key", "expected keys of 1 to 255 bytes");
    }
  }
}

void Api::handle(HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
  Call call{std::move(request), exchange, {}};
  call.path = plain_path(call.request.path);
  const std::string id = clean_request_id(call.request.request_id);
  if (!id.empty()) call.headers.emplace_back("X-Request-Id", id);
  ApiError failure;
  try {
    const Route& route = find_route(call);
    guard(call, route);
    (this->*route.answer)(call);
    return;
  } catch (const ApiError& error) {
    failure = error;
  } catch (const Error& error) {
    failure = api_error(error);
    if (failure.status == 500) std::cerr << "dmc: " << call.path << ": " << error.what() << "\n";
  } catch (const std::exception& error) {
    failure = api_error(internal_error(error.what()));
    std::cerr << "dmc: " << call.path << ": " << error.what() << "\n";
  }
  metrics_.count_answer(failure.status);
  call.answer(error_response(failure));
}

const Api::Route& Api::find_route(const Call& call) const {
  const std::string method = call.request.method == "HEAD" ? "GET" : call.request.method;
  std::string allowed;
  for (const Route& route : routes()) {
    const bool open_end = route.path.ends_with('*');
    const std::string_view stem = route.path.substr(0, route.path.size() - (open_end ? 1 : 0));
    const bool here = open_end ? call.path.starts_with(stem) && call.path.size() > stem.size()
                               : call.path == stem;
    if (!here) continue;
    if (route.method == method) return route;
    allowed = route.method == "GET" ? "GET, HEAD" : std::string(route.method);
  }
  if (allowed.empty()) {
    refuse({404, "not_found_error", "not_found",
            "there is no " + utf8_repaired(call.request.path.substr(0, 200)) +
                " here; /openapi.json tells what is"});
  }
  refuse({405,
          "invalid_request_error",
          "method_not_allowed",
          "expected " + allowed,
          "",
          "",
          {{"Allow", allowed}}});
}

void Api::guard(const Call& call, const Route& route) const {
  const auto& hosts = options_.allowed_hosts;
  if (!hosts.empty() && std::ranges::find(hosts, host_name(call.request.host)) == hosts.end()) {
    refuse({403, "permission_error", "host_not_allowed",
            "this server is not known by the name that the Host header has"});
  }
  if (!route.open && !options_.keys.empty()) {
    std::string_view shown = call.request.authorization;
    if (shown.starts_with("Bearer ")) shown.remove_prefix(7);
    if (!is_key(shown, options_.keys)) {
      refuse({401,
              "authentication_error",
              "invalid_api_key",
              "expected Authorization: Bearer KEY with a key this server knows",
              "",
              "",
              {{"WWW-Authenticate", "Bearer"}}});
    }
  }
  if (route.method == "POST") check_body(call);
}

// A JSON type is asked for because web pages of others cannot send it unasked.
void Api::check_body(const Call& call) const {
  std::string type = call.request.content_type.substr(0, call.request.content_type.find(';'));
  while (type.ends_with(' ')) type.pop_back();
  std::ranges::transform(type, type.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  });
  if (type != "application/json") {
    refuse({415, "invalid_request_error", "unsupported_media_type",
            "add the header Content-Type: application/json"});
  }
  const std::string& encoding = call.request.content_encoding;
  if (!encoding.empty() && encoding != "identity") {
    refuse({415, "invalid_request_error", "unsupported_media_type",
            "send the body without Content-Encoding"});
  }
}

// --- Texts ---

void Api::completions(Call& call) { texts(call, static_cast<int>(Endpoint::kCompletions)); }
void Api::chat(Call& call) { texts(call, static_cast<int>(Endpoint::kChat)); }

void Api::texts(Call& call, int endpoint) {
  if (draining_) throw unavailable("", "the server is about to end; ask another");
  TextRequest request = read_text_request(
      parse_body(call.request.body), static_cast<Endpoint>(endpoint), model_, options_.max_texts);
  const auto answer = std::make_shared<TextAnswer>(std::move(request), call.exchange, model_,
                                                   metrics_, call.headers);
  answer->start(engine_);
}

// --- The model ---

namespace {

ordered_json model_object(const ServedModel& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "dmc"},
          {"root", model.root},
          {"parent", nullptr},
          {"max_model_len", model.context},
          {"dmc",
           {{"policy", model.policy},
            {"layers", model.layers},
            {"kv_heads", model.kv_heads},
            {"slot_type", model.slot_type},
            {"chat", model.chat.has_value()}}}};
}

}  // namespace

void Api::models(Call& call) {
  call.answer({200, dump({{"object", "list"}, {"data", {model_object(model_)}}})});
}

void Api::model(Call& call) {
  if (call.path.substr(8) != model_.id) {
    throw Error(ErrorCode::kNotFound, "model",
                "there is no such model; this server has \"" + model_.id + "\"");
  }
  call.answer({200, dump(model_object(model_))});
}

void Api::tokenize(Call& call) {
  const json body = parse_body(call.request.body);
  const bool chats = body.is_object() && body.contains("messages");
  const RequestFields fields(body, chats ? Endpoint::kChat : Endpoint::kCompletions);
  std::vector<int32_t> tokens;
  if (chats) {
    tokens = encode_messages(fields, model_);
  } else {
    if (!fields.has("prompt") || !fields.at("prompt").is_string()) {
      throw invalid_argument("prompt", "expected text");
    }
    tokens = encode_text(fields.at("prompt"), fields.boolean("add_special_tokens"), model_);
  }
  call.answer(
      {200,
       dump({{"count", tokens.size()}, {"max_model_len", model_.context}, {"tokens", tokens}})});
}

void Api::detokenize(Call& call) {
  const json body = parse_body(call.request.body);
  const json tokens = body.is_object() ? body.value("tokens", json()) : json();
  if (!tokens.is_array()) throw invalid_argument("tokens", "expected a list of token ids");
  std::vector<int32_t> ids;
  for (const json& token : tokens) {
    const auto id = whole_number(token);
    if (!id || *id < 0 || *id >= model_.vocab_size) {
      throw invalid_argument("tokens",
                             "expected ids from 0 to " + std::to_string(model_.vocab_size - 1));
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  call.answer({200, dump({{"prompt", model_.tokenizer.decode(ids)}})});
}

void Api::tokenizer_info(Call& call) { call.answer({200, dump(model_.tokenizer_info)}); }

// --- The server ---

void Api::health(Call& call) {
  if (engine_.state().broken) throw unavailable("", "the model fails in every step");
  if (draining_) throw unavailable("", "the server is about to end");
  call.answer({200, "{\"status\":\"ok\"}"});
}

void Api::live(Call& call) { call.answer({200, "{\"status\":\"ok\"}"}); }

void Api::version(Call& call) {
  call.answer({200, dump({{"version", options_.version}, {"name", "dmc"}})});
}

void Api::metrics(Call& call) {
  const Metrics::About about{options_.version,      model_.id,
                             model_.policy,         options_.page_bytes,
                             model_.slot_bytes,     model_.layers * model_.kv_heads,
                             options_.connections()};
  call.answer(
      {200, metrics_.render(engine_.state(), about), "text/plain; version=0.0.4; charset=utf-8"});
}

void Api::openapi(Call& call) { call.answer({200, openapi_json(model_, options_.version)}); }

void Api::page(Call& call) {
  if (!options_.page) refuse({404, "not_found_error", "not_found", "the page is switched off"});
  call.answer({200,
               page_html(),
               "text/html; charset=utf-8",
               {{"Content-Security-Policy",
                 "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
                 "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                 "frame-ancestors 'none'"},
                {"X-Content-Type-Options", "nosniff"},
                {"Referrer-Policy", "no-referrer"}}});
}

}  // namespace dmc::server
