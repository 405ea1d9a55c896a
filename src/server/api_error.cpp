#include "server/api_error.h"

#include "base/utf8.h"
#include "server/json_text.h"

namespace dmc::server {
namespace {

// Programs around the API look for this beginning of a message.
constexpr std::string_view kContextFull = "This model's maximum context length";

}  // namespace

ApiError api_error(const Error& error) {
  const std::string sentence =
      error.field().empty() ? error.what() : error.field() + ": " + error.what();
  if (std::string_view(error.what()).starts_with(kContextFull)) {
    return {400, "invalid_request_error", "context_length_exceeded", error.what(), error.field()};
  }
  switch (error.code()) {
    case ErrorCode::kInvalidArgument:
      return {400, "invalid_request_error", "invalid_value", sentence, error.field()};
    case ErrorCode::kNotFound:
      return {404, "not_found_error", error.field() == "model" ? "model_not_found" : "not_found",
              error.what(), error.field()};
    case ErrorCode::kExhausted:
      return {503, "overloaded_error", "overloaded", sentence, "", "", {{"Retry-After", "1"}}};
    case ErrorCode::kUnavailable:
    case ErrorCode::kCancelled:
      return {503, "unavailable_error", "unavailable", sentence, "", "", {{"Retry-After", "5"}}};
    default:
      return {500,
              "server_error",
              "internal_error",
              "the server failed; its log says why",
              "",
              "",
              {{"x-should-retry", "false"}}};
  }
}

std::string error_body(const ApiError& error) {
  std::string body = "{\"error\":{\"message\":";
  append_json_string(&body, utf8_repaired(error.message));
  body += ",\"type\":" + json_string(error.type) + ",\"param\":";
  body += error.param.empty() ? "null" : json_string(utf8_repaired(error.param));
  body += ",\"code\":" + (error.code.empty() ? "null" : json_string(error.code)) + error.more;
  return body + "}}";
}

HttpResponse error_response(const ApiError& error) {
  return {error.status, error_body(error), "application/json", error.headers};
}

}  // namespace dmc::server
