// From a request's JSON to what the engine is asked.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/fields.h"
#include "server/served_model.h"

namespace dmc::server {

struct TextRequest {
  Endpoint endpoint = Endpoint::kCompletions;
  std::vector<std::vector<int32_t>> prompts;
  engine::RequestOptions engine;  // the same for all prompts
  std::vector<std::string> stops;
  bool keep_stop = false;
  bool stream = false, include_usage = false, usage_in_each = false;
  bool echo = false, skip_special = true, token_ids = false, slots = false;
};

// Error(kInvalidArgument) naming the field that is wrong, Error(kNotFound) for another model.
// `max_prompts` bounds prompts times choices.
TextRequest read_text_request(const nlohmann::json& body, Endpoint endpoint,
                              const ServedModel& model, int64_t max_texts);

// A prompt as tokens, by the rules of `add_special`. Error(kInvalidArgument) if it is too long to
// be looked at.
std::vector<int32_t> encode_text(const std::string& text, bool add_special,
                                 const ServedModel& model);
// Messages as the template writes them. Errors as those of ChatTemplate::render().
std::vector<int32_t> encode_messages(const RequestFields& fields, const ServedModel& model);

}  // namespace dmc::server
