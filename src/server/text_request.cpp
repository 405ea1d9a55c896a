#include "server/text_request.h"

#include <algorithm>
#include <random>
#include <set>

#include "base/error.h"
#include "base/utf8.h"

namespace dmc::server {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kMostPrompts = 256;
constexpr int64_t kBytesOfToken = 16;  // more text than this for each position is not looked at
constexpr size_t kLeastText = 1 << 16;

std::vector<int32_t> token_ids(const json& ids, const ServedModel& model) {
  std::vector<int32_t> result;
  result.reserve(ids.size());
  for (const json& id : ids) {
    const auto whole = whole_number(id);
    if (!whole || *whole < 0 || *whole >= model.vocab_size) {
      throw invalid_argument(
          "prompt", "expected token ids from 0 to " + std::to_string(model.vocab_size - 1));
    }
    result.push_back(static_cast<int32_t>(*whole));
  }
  return result;
}

// The ratio that the request's cache is held at; 0: the server's.
double read_ratio(const RequestFields& fields, const ServedModel& model) {
  constexpr double kMost = 64.0;
  if (!fields.has("dmc")) return 0.0;
  const json cr = fields.at("dmc").value("cr", json());
  if (cr.is_null()) return 0.0;
  const double ratio = cr.is_number() ? cr.get<double>() : 0.0;
  if (!(ratio >= 1.0 && ratio <= kMost)) {
    throw invalid_argument("dmc", "expected a cr from 1 to 64");
  }
  if (!model.holds_ratio) {
    throw invalid_argument("dmc",
                           "names a cr, but this server was not started to hold ratios; leave it "
                           "out, and the policy " +
                               model.policy + " compresses as it does");
  }
  return ratio;
}

std::vector<std::vector<int32_t>> read_prompts(const RequestFields& fields,
                                               const ServedModel& model) {
  if (!fields.has("prompt")) throw invalid_argument("prompt", "is missing");
  const json& prompt = fields.at("prompt");
  const bool add_special = fields.boolean("add_special_tokens");
  const auto one = [&](const json& value) {
    if (value.is_string()) {
      return encode_text(value.get_ref<const std::string&>(), add_special, model);
    }
    if (!value.is_array()) throw invalid_argument("prompt", "expected text or lists of token ids");
    return token_ids(value, model);
  };
  const bool many =
      prompt.is_array() && !prompt.empty() && (prompt[0].is_string() || prompt[0].is_array());
  std::vector<std::vector<int32_t>> prompts;
  if (!many) {
    prompts.push_back(one(prompt));
  } else {
    if (prompt.size() > kMostPrompts) throw invalid_argument("prompt", "expected at most 256");
    for (const json& each : prompt) prompts.push_back(one(each));
  }
  if (const auto most = fields.maybe_integer("truncate_prompt_tokens")) {
    for (auto& tokens : prompts) {
      const auto kept = std::min(tokens.size(), static_cast<size_t>(*most));
      tokens.erase(tokens.begin(), tokens.end() - static_cast<long>(kept));
    }
  }
  return prompts;
}

// Content as text: a string, or parts of type text.
std::string content_text(const json& content) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array())
    throw invalid_argument("messages", "a content is neither text nor parts");
  std::string text;
  for (const json& part : content) {
    if (!part.is_object() || part.value("type", json()) != "text" ||
        !part.value("text", json()).is_string()) {
      throw invalid_argument("messages", "expected parts of type \"text\" only");
    }
    text += part["text"].get_ref<const std::string&>();
  }
  return text;
}

ordered_json read_message(const json& message) {
  static const std::set<std::string> kRoles = {"system", "developer", "user", "assistant", "tool"};
  if (!message.is_object()) throw invalid_argument("messages", "a message is not an object");
  const json role = message.value("role", json());
  if (!role.is_string() || !kRoles.contains(role.get<std::string>())) {
    throw invalid_argument(
        "messages", "expected the role system, developer, user, assistant or tool of each message");
  }
  const json content = message.value("content", json());
  if (content.is_null()) throw invalid_argument("messages", "a message has no content");
  const bool developer = role == "developer";  // the newer name; templates know the older
  return {{"role", developer ? "system" : role.get<std::string>()},
          {"content", content_text(content)}};
}

ordered_json template_variables(const RequestFields& fields) {
  ordered_json variables = ordered_json::object();
  if (!fields.has("chat_template_kwargs")) return variables;
  static const std::set<std::string> kOurs = {
      "messages", "add_generation_prompt", "bos_token", "eos_token", "tokenize", "chat_template"};
  for (const auto& [name, value] : fields.at("chat_template_kwargs").items()) {
    if (kOurs.contains(name) || value.is_structured()) {
      throw invalid_argument("chat_template_kwargs",
                             "\"" + name + "\" cannot be set; plain values of other names can");
    }
    variables[name] = value;
  }
  return variables;
}

// The conversation ends inside the last message instead of behind it.
void cut_behind_last_message(text::ChatPrompt* prompt, const std::string& content) {
  const size_t at = content.empty() ? std::string::npos : prompt->text.rfind(content);
  if (at == std::string::npos) {
    throw invalid_argument("continue_final_message", "the template does not show the last message");
  }
  prompt->text.resize(at + content.size());
  std::erase_if(prompt->untrusted,
                [&](const ByteRange& range) { return range.begin >= prompt->text.size(); });
  for (ByteRange& range : prompt->untrusted) range.end = std::min(range.end, prompt->text.size());
}

uint64_t random_seed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

void read_sampling(const RequestFields& fields, engine::RequestOptions* options) {
  engine::SamplingOptions& sampling = options->sampling;
  sampling.temperature = fields.number("temperature");
  sampling.top_p = fields.number("top_p");
  sampling.top_k = std::max<int64_t>(0, fields.integer("top_k"));
  sampling.min_p = fields.number("min_p");
  const auto seed = fields.maybe_integer("seed");
  sampling.seed = seed ? static_cast<uint64_t>(*seed) : random_seed();
  engine::LogitRules& rules = options->rules;
  rules.repetition_penalty = fields.number("repetition_penalty");
  rules.presence_penalty = fields.number("presence_penalty");
  rules.frequency_penalty = fields.number("frequency_penalty");
  rules.min_tokens = fields.integer("min_tokens");
  if (!fields.has("logit_bias")) return;
  for (const auto& [id, bias] : fields.at("logit_bias").items()) {
    rules.bias.emplace_back(std::stoi(id), bias.get<float>());
  }
}

void read_stream(const RequestFields& fields, TextRequest* request) {
  request->stream = fields.boolean("stream");
  if (!fields.has("stream_options")) return;
  if (!request->stream) throw invalid_argument("stream_options", "needs stream: true");
  const json& options = fields.at("stream_options");
  const auto flag = [&](const char* name) {
    const json value = options.value(name, json());
    if (!value.is_null() && !value.is_boolean()) {
      throw invalid_argument("stream_options", std::string(name) + " is not true or false");
    }
    return value == true;
  };
  request->include_usage = flag("include_usage");
  request->usage_in_each = flag("continuous_usage_stats");
}

void read_logprobs(const RequestFields& fields, TextRequest* request) {
  engine::RequestOptions& options = request->engine;
  if (request->endpoint == Endpoint::kCompletions) {
    options.logprobs = fields.maybe_integer("logprobs");
  } else {
    const bool rated = fields.has("logprobs") && fields.boolean("logprobs");
    const auto top = fields.maybe_integer("top_logprobs");
    if (top && !rated) throw invalid_argument("top_logprobs", "needs logprobs: true");
    if (rated) options.logprobs = top.value_or(0);
  }
  options.prompt_logprobs = fields.maybe_integer("prompt_logprobs");
  if (options.prompt_logprobs && request->stream) {
    throw invalid_argument("prompt_logprobs", "cannot be streamed");
  }
  if (request->echo && options.logprobs) {
    options.prompt_logprobs = std::max(options.prompt_logprobs.value_or(0), *options.logprobs);
  }
}

void read_lengths(const RequestFields& fields, const ServedModel& model, TextRequest* request) {
  engine::RequestOptions& options = request->engine;
  int64_t longest = 0;
  for (const auto& prompt : request->prompts) {
    longest = std::max(longest, static_cast<int64_t>(prompt.size()));
  }
  const bool chat = request->endpoint == Endpoint::kChat;
  const auto asked = fields.has("max_completion_tokens")
                         ? fields.maybe_integer("max_completion_tokens")
                         : fields.maybe_integer("max_tokens");
  options.max_tokens = asked.value_or(chat ? model.context : 16);
  if (longest > model.context || (longest == model.context && options.max_tokens > 0)) {
    throw invalid_argument("prompt", "This model's maximum context length is " +
                                         std::to_string(model.context) +
                                         " tokens, but the prompt has " + std::to_string(longest));
  }
  options.max_tokens = std::min(options.max_tokens, model.context - longest);
  if (options.rules.min_tokens > options.max_tokens) {
    throw invalid_argument("min_tokens", "is more than max_tokens");
  }
}

void require_model(const RequestFields& fields, const ServedModel& model) {
  if (!fields.has("model") || fields.at("model") == model.id) return;
  throw Error(ErrorCode::kNotFound, "model",
              "there is no model " +
                  fields.at("model").dump(-1, ' ', true, json::error_handler_t::replace) +
                  "; this server has \"" + model.id + "\"");
}

void check_choices(const RequestFields& fields, TextRequest* request, int64_t max_texts) {
  request->engine.choices = fields.integer("n");
  const auto best_of = fields.maybe_integer("best_of");
  if (best_of && *best_of != request->engine.choices) {
    throw invalid_argument("best_of", "is not supported; leave it out, or give it as n");
  }
  const auto texts = static_cast<int64_t>(request->prompts.size()) * request->engine.choices;
  if (texts > max_texts) {
    throw invalid_argument("n", "prompts times n are " + std::to_string(texts) + ", expected " +
                                    std::to_string(max_texts) + " at most");
  }
}

}  // namespace

std::vector<int32_t> encode_text(const std::string& text, bool add_special,
                                 const ServedModel& model) {
  const size_t most = std::max(kLeastText, static_cast<size_t>(kBytesOfToken * model.context));
  if (text.size() > most) {
    throw invalid_argument("prompt", "This model's maximum context length is " +
                                         std::to_string(model.context) +
                                         " tokens, which a text of " + std::to_string(text.size()) +
                                         " bytes is too long for");
  }
  return add_special ? model.tokenizer.encode_prompt(text) : model.tokenizer.encode(text, true);
}

std::vector<int32_t> encode_messages(const RequestFields& fields, const ServedModel& model) {
  if (!model.chat) {
    throw invalid_argument("messages",
                           "this model has no chat template; ask /v1/completions instead");
  }
  if (!fields.has("messages")) throw invalid_argument("messages", "is missing");
  ordered_json messages = ordered_json::array();
  for (const json& message : fields.at("messages")) messages.push_back(read_message(message));
  const bool continues = fields.boolean("continue_final_message");
  // As others have it: the one excludes the other only where both were asked for.
  if (continues && fields.has("add_generation_prompt") && fields.boolean("add_generation_prompt")) {
    throw invalid_argument("continue_final_message", "excludes add_generation_prompt");
  }
  if (continues && messages.back()["role"] != "assistant") {
    throw invalid_argument("continue_final_message", "the last message is not the assistant's");
  }
  text::ChatPrompt prompt = model.chat->render(
      messages, !continues && fields.boolean("add_generation_prompt"), template_variables(fields));
  if (continues) cut_behind_last_message(&prompt, messages.back()["content"].get<std::string>());
  const size_t most = std::max(kLeastText, static_cast<size_t>(kBytesOfToken * model.context));
  if (prompt.text.size() > most) encode_text(prompt.text, false, model);  // says why not
  return model.tokenizer.encode_marked(prompt.text, prompt.untrusted);
}

TextRequest read_text_request(const json& body, Endpoint endpoint, const ServedModel& model,
                              int64_t max_texts) {
  const RequestFields fields(body, endpoint);
  require_model(fields, model);
  TextRequest request{.endpoint = endpoint};
  if (endpoint == Endpoint::kChat) {
    request.prompts.push_back(encode_messages(fields, model));
  } else {
    request.prompts = read_prompts(fields, model);
    request.echo = fields.boolean("echo");
  }
  if (std::ranges::any_of(request.prompts, [](const auto& prompt) { return prompt.empty(); })) {
    throw invalid_argument(endpoint == Endpoint::kChat ? "messages" : "prompt",
                           "is empty; give some text");
  }
  check_choices(fields, &request, max_texts);
  read_sampling(fields, &request.engine);
  read_lengths(fields, model, &request);
  read_stream(fields, &request);
  read_logprobs(fields, &request);
  const auto& ends = endpoint == Endpoint::kChat ? model.reply_ids : model.eos_ids;
  if (!fields.boolean("ignore_eos")) request.engine.stop_ids = ends;
  for (int64_t id : fields.integers("stop_token_ids")) request.engine.stop_ids.push_back(id);
  request.stops = fields.strings("stop");
  request.keep_stop = fields.boolean("include_stop_str_in_output");
  request.skip_special = fields.boolean("skip_special_tokens");
  request.token_ids = fields.boolean("return_token_ids");
  request.slots = fields.has("dmc") && fields.at("dmc").value("slots", json()) == true;
  request.engine.held_cr = read_ratio(fields, model);
  return request;
}

}  // namespace dmc::server
