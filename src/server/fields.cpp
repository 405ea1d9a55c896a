#include "server/fields.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/named.h"

namespace dmc::server {
namespace {

using nlohmann::json;
using enum FieldType;
using enum Endpoint;

constexpr double kMany = 1 << 30, kSafe = 9007199254740991.0;  // the largest whole double's range
constexpr size_t kMostStops = 16, kStopBytes = 256, kMostBiases = 1024;

using Neutral = std::array<std::string_view, 3>;
constexpr Neutral kNoList = {"[]", "[]", "[]"}, kNoText = {"\"\"", "\"\"", "\"\""},
                  kFalse = {"false", "false", "false"},
                  kNoTool = {"\"none\"", "\"auto\"", "\"none\""},
                  kText = {"{\"type\":\"text\"}", "{}", "{}"};

constexpr Field kFields[] = {
    {"model", kString, kBoth, "the model's id, as /v1/models tells it; may be left out", 0, 4096},
    {"prompt", kPrompt, kCompletions, "text or token ids to continue, one or up to 256 of them"},
    {"messages", kMessages, kChat, "the conversation so far"},
    {"max_tokens", kInteger, kBoth, "tokens to write at most (chat: what is left of the context)",
     0, kMany},
    {"max_completion_tokens", kInteger, kBoth, "the newer name of max_tokens, which it overrides",
     0, kMany},
    {"min_tokens", kInteger, kBoth, "tokens before the text may end", 0, kMany, false, "0"},
    {"temperature", kNumber, kBoth, "0: always the likeliest token", 0, 2, false, "1"},
    {"top_p", kNumber, kBoth, "choose among the likeliest that reach this probability together", 0,
     1, true, "1"},
    {"top_k", kInteger, kBoth, "choose among the k likeliest; 0 or -1: all", -1, kMany, false, "0"},
    {"min_p", kNumber, kBoth, "drop tokens less likely than this times the likeliest", 0, 1, false,
     "0"},
    {"repetition_penalty", kNumber, kBoth, "above 1: what prompt and text have becomes less likely",
     0, 100, true, "1"},
    {"presence_penalty", kNumber, kBoth, "taken off the logits of tokens the text has", -2, 2,
     false, "0"},
    {"frequency_penalty", kNumber, kBoth, "the same for each time the text has them", -2, 2, false,
     "0"},
    {"logit_bias", kBias, kBoth, "added to the logits of single tokens: {\"id\": number}", -100,
     100},
    {"seed", kInteger, kBoth, "the same seed gives the same text, whatever else is served", -kSafe,
     kSafe},
    {"stop", kStrings, kBoth, "strings that end the text", 1, kStopBytes},
    {"stop_token_ids", kIntegers, kBoth, "tokens that end the text", 0, kMany},
    {"include_stop_str_in_output", kBoolean, kBoth, "the stop string stays in the text", 0, 0,
     false, "false"},
    {"ignore_eos", kBoolean, kBoth, "the model's end-of-text tokens do not end the text", 0, 0,
     false, "false"},
    {"n", kInteger, kBoth, "texts for each prompt", 1, 16, false, "1"},
    {"best_of", kInteger, kCompletions, "must be n", 1, 16},
    {"stream", kBoolean, kBoth, "answer with server-sent events as tokens come", 0, 0, false,
     "false"},
    {"stream_options", kObject, kBoth, "include_usage, continuous_usage_stats; with stream only"},
    {"echo", kBoolean, kCompletions, "the text begins with the prompt", 0, 0, false, "false"},
    {"logprobs", kInteger, kCompletions, "rate tokens, and list so many of the likeliest", 0, 20},
    {"logprobs", kBoolean, kChat, "rate tokens", 0, 0, false, "false"},
    {"top_logprobs", kInteger, kChat, "list so many of the likeliest; needs logprobs", 0, 20},
    {"prompt_logprobs", kInteger, kBoth, "rate the prompt's tokens, too; not with stream", 0, 20},
    {"add_special_tokens", kBoolean, kCompletions, "put around a text what the model wants (BOS)",
     0, 0, false, "true"},
    {"skip_special_tokens", kBoolean, kBoth, "leave control tokens out of the text", 0, 0, false,
     "true"},
    {"truncate_prompt_tokens", kInteger, kCompletions, "keep so many of the prompt's last tokens",
     1, kMany},
    {"return_token_ids", kBoolean, kBoth, "answer with token ids, too", 0, 0, false, "false"},
    {"add_generation_prompt", kBoolean, kChat, "begin the assistant's message", 0, 0, false,
     "true"},
    {"continue_final_message", kBoolean, kChat,
     "go on with the last message, which is the assistant's", 0, 0, false, "false"},
    {"chat_template_kwargs", kObject, kChat, "variables of the chat template; plain values only"},
    {"dmc", kObject, kBoth,
     "{\"slots\": true}: usage tells what each layer and head keeps; {\"cr\": N}: the ratio that "
     "the cache "
     "is held at, where the server holds one"},
    {"suffix", kAny, kCompletions, "not supported", 0, 0, false, "", kNoText},
    {"use_beam_search", kAny, kBoth, "not supported", 0, 0, false, "", kFalse},
    {"response_format", kAny, kBoth, "not supported but as {\"type\": \"text\"}", 0, 0, false, "",
     kText},
    {"tools", kAny, kChat, "not supported", 0, 0, false, "", kNoList},
    {"tool_choice", kAny, kChat, "not supported", 0, 0, false, "", kNoTool},
    {"functions", kAny, kChat, "not supported", 0, 0, false, "", kNoList},
};

std::string plain(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15
             ? std::to_string(static_cast<int64_t>(value))
             : std::to_string(value);
}

[[noreturn]] void wrong(const Field& field, const std::string& expected) {
  throw invalid_argument(std::string(field.name), "expected " + expected);
}

std::string range(const Field& field, const char* what) {
  return std::string(what) + (field.above ? " above " : " from ") + plain(field.least) +
         (field.above ? " and at most " : " to ") + plain(field.most);
}

bool in_range(const Field& field, double value) {
  return (field.above ? value > field.least : value >= field.least) && value <= field.most;
}

void check_integer(const Field& field, const json& value) {
  const auto whole = whole_number(value);
  if (!whole || !in_range(field, static_cast<double>(*whole))) {
    wrong(field, range(field, "a whole number"));
  }
}

void check_number(const Field& field, const json& value) {
  if (!value.is_number() || !in_range(field, value.get<double>())) {
    wrong(field, range(field, "a number"));
  }
}

void check_string(const Field& field, const json& value) {
  if (!value.is_string()) wrong(field, "text");
  const double size = static_cast<double>(value.get_ref<const std::string&>().size());
  if (!in_range(field, size)) wrong(field, range(field, "a text whose size in bytes is"));
}

void check_strings(const Field& field, const json& value) {
  if (!value.is_array()) return check_string(field, value);
  if (value.size() > kMostStops) wrong(field, "at most 16 strings");
  for (const json& element : value) check_string(field, element);
}

void check_integers(const Field& field, const json& value) {
  if (!value.is_array() || value.size() > kMostBiases) wrong(field, "a list of at most 1024 ids");
  for (const json& element : value) check_integer(field, element);
}

void check_bias(const Field& field, const json& value) {
  if (!value.is_object() || value.size() > kMostBiases) {
    wrong(field, "an object of at most 1024 tokens");
  }
  for (const auto& [key, bias] : value.items()) {
    const bool id = !key.empty() && key.size() < 10 &&
                    std::ranges::all_of(key, [](char c) { return c >= '0' && c <= '9'; });
    if (!id) wrong(field, "token ids as keys");
    check_number(field, bias);
  }
}

void check_neutral(const Field& field, const json& value) {
  const auto is = [&](std::string_view neutral) { return value == json::parse(neutral); };
  if (std::ranges::none_of(field.neutral, is)) {
    throw invalid_argument(std::string(field.name), "is not supported; leave it out");
  }
}

void check(const Field& field, const json& value) {
  switch (field.type) {
    case kInteger:
      return check_integer(field, value);
    case kNumber:
      return check_number(field, value);
    case kBoolean:
      if (!value.is_boolean()) wrong(field, "true or false");
      return;
    case kString:
      return check_string(field, value);
    case kStrings:
      return check_strings(field, value);
    case kIntegers:
      return check_integers(field, value);
    case kPrompt:
      if (!value.is_string() && !value.is_array()) wrong(field, "text, token ids, or a list");
      return;
    case kMessages:
      if (!value.is_array() || value.empty()) wrong(field, "a list of messages");
      return;
    case kBias:
      return check_bias(field, value);
    case kObject:
      if (!value.is_object()) wrong(field, "an object");
      return;
    case kAny:
      return check_neutral(field, value);
  }
}

}  // namespace

std::span<const Field> request_fields() { return kFields; }

bool has_field(const Field& field, Endpoint where) {
  return (static_cast<int>(field.where) & static_cast<int>(where)) != 0;
}

std::optional<int64_t> whole_number(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(kSafe)) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (number != std::floor(number) || std::abs(number) > kSafe) return std::nullopt;
  return static_cast<int64_t>(number);
}

RequestFields::RequestFields(const json& body, Endpoint where) : body_(body) {
  if (!body.is_object()) throw invalid_argument("the body is not a JSON object");
  for (const Field& field : kFields) {
    if (has_field(field, where) && has(field.name)) check(field, at(field.name));
  }
}

bool RequestFields::has(std::string_view name) const {
  const auto found = body_.find(std::string(name));
  return found != body_.end() && !found->is_null();
}

const json& RequestFields::at(std::string_view name) const { return body_.at(std::string(name)); }

json RequestFields::value(std::string_view name) const {
  if (has(name)) return at(name);
  return json::parse(find_named(kFields, name)->fallback);
}

int64_t RequestFields::integer(std::string_view name) const { return *whole_number(value(name)); }
double RequestFields::number(std::string_view name) const { return value(name).get<double>(); }
bool RequestFields::boolean(std::string_view name) const { return value(name).get<bool>(); }

std::optional<int64_t> RequestFields::maybe_integer(std::string_view name) const {
  if (!has(name)) return std::nullopt;
  return whole_number(at(name));
}

std::vector<std::string> RequestFields::strings(std::string_view name) const {
  if (!has(name)) return {};
  if (at(name).is_string()) return {at(name).get<std::string>()};
  return at(name).get<std::vector<std::string>>();
}

std::vector<int64_t> RequestFields::integers(std::string_view name) const {
  std::vector<int64_t> result;
  if (!has(name)) return result;
  for (const json& element : at(name)) result.push_back(*whole_number(element));
  return result;
}

}  // namespace dmc::server
