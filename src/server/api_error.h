// Errors as clients of the OpenAI API know them.
#pragma once

#include <optional>
#include <string>

#include "base/error.h"
#include "server/http.h"

namespace dmc::server {

struct ApiError {
  int status = 400;
  std::string type = "invalid_request_error", code, message;
  std::string param;  // empty: none
  std::string more;   // JSON members behind the others, ",\"a\":1"
  Headers headers = {};
};

// Of one of our errors. Those that are our own say nothing about this machine.
ApiError api_error(const Error& error);
std::string error_body(const ApiError& error);
HttpResponse error_response(const ApiError& error);

}  // namespace dmc::server
