// /openapi.json, from the table of request fields.
#include "server/api.h"
#include "server/fields.h"

namespace dmc::server {
namespace {

using nlohmann::ordered_json;

ordered_json number_schema(const char* type, const Field& field) {
  ordered_json schema = {{"type", type}, {"maximum", field.most}};
  schema[field.above ? "exclusiveMinimum" : "minimum"] = field.least;
  return schema;
}

ordered_json string_schema(const Field& field) {
  return {{"type", "string"}, {"minLength", field.least}, {"maxLength", field.most}};
}

ordered_json either(std::initializer_list<ordered_json> schemas) {
  ordered_json any = ordered_json::array();
  for (const ordered_json& schema : schemas) any.push_back(schema);
  return {{"anyOf", any}};
}

ordered_json array_of(const ordered_json& items, int64_t most, int64_t least = 0) {
  return {{"type", "array"}, {"items", items}, {"minItems", least}, {"maxItems", most}};
}

ordered_json messages_schema() {
  const ordered_json part = {
      {"type", "object"},
      {"properties", {{"type", {{"const", "text"}}}, {"text", {{"type", "string"}}}}},
      {"required", {"type", "text"}}};
  const ordered_json content = either({{{"type", "string"}}, array_of(part, 64)});
  const ordered_json message = {
      {"type", "object"},
      {"properties",
       {{"role", {{"enum", {"system", "developer", "user", "assistant", "tool"}}}},
        {"content", content}}},
      {"required", {"role", "content"}}};
  return array_of(message, 1024, 1);
}

ordered_json prompt_schema(const ServedModel& model) {
  const ordered_json id = {{"type", "integer"}, {"minimum", 0}, {"maximum", model.vocab_size - 1}};
  const ordered_json text = {{"type", "string"}, {"minLength", 1}};
  const ordered_json ids = array_of(id, model.context, 1);
  return either({text, array_of(text, 256, 1), ids, array_of(ids, 256, 1)});
}

ordered_json field_schema(const Field& field, const ServedModel& model) {
  switch (field.type) {
    case FieldType::kInteger:
      return number_schema("integer", field);
    case FieldType::kNumber:
      return number_schema("number", field);
    case FieldType::kBoolean:
      return {{"type", "boolean"}};
    case FieldType::kString:
      return string_schema(field);
    case FieldType::kStrings:
      return either({string_schema(field), array_of(string_schema(field), 16)});
    case FieldType::kIntegers:
      return array_of(number_schema("integer", field), 1024);
    case FieldType::kPrompt:
      return prompt_schema(model);
    case FieldType::kMessages:
      return messages_schema();
    case FieldType::kBias:
      return {{"type", "object"},
              {"maxProperties", 1024},
              {"additionalProperties", number_schema("number", field)},
              {"propertyNames", {{"pattern", "^[0-9]{1,9}$"}}}};
    case FieldType::kObject:
      return {{"type", "object"}};
    case FieldType::kAny: {
      ordered_json values = ordered_json::array();
      for (std::string_view neutral : field.neutral) {
        const ordered_json value = ordered_json::parse(neutral);
        if (std::ranges::find(values, value) == values.end()) values.push_back(value);
      }
      return {{"enum", values}};
    }
  }
  return ordered_json::object();
}

ordered_json request_schema(Endpoint where, const ServedModel& model) {
  ordered_json properties = ordered_json::object();
  for (const Field& field : request_fields()) {
    if (!has_field(field, where)) continue;
    ordered_json schema = field.type == FieldType::kMessages || field.type == FieldType::kPrompt
                              ? field_schema(field, model)
                              : either({field_schema(field, model), {{"type", "null"}}});
    schema["description"] = field.summary;
    if (!field.fallback.empty()) schema["default"] = ordered_json::parse(field.fallback);
    properties[std::string(field.name)] = schema;
  }
  return {{"type", "object"},
          {"properties", properties},
          {"required", {where == Endpoint::kChat ? "messages" : "prompt"}}};
}

ordered_json content(const char* type, const ordered_json& schema) {
  return {{"content", {{type, {{"schema", schema}}}}}};
}

ordered_json answer(const char* what, const char* type, const ordered_json& schema) {
  ordered_json result = {{"description", what}};
  result.update(content(type, schema));
  return result;
}

ordered_json operation(const char* summary, ordered_json responses) {
  const ordered_json error = {
      {"type", "object"},
      {"properties",
       {{"error",
         {{"type", "object"},
          {"properties", {{"message", {{"type", "string"}}}, {"type", {{"type", "string"}}}}},
          {"required", {"message", "type", "param", "code"}}}}}},
      {"required", {"error"}}};
  responses["default"] = answer("an error, as the OpenAI API has it", "application/json", error);
  return {{"summary", summary}, {"responses", responses}};
}

ordered_json json_operation(const char* summary) {
  return operation(summary,
                   {{"200", answer("the answer", "application/json", {{"type", "object"}})}});
}

ordered_json post(ordered_json operation, const ordered_json& schema) {
  ordered_json body = {{"required", true}};
  body.update(content("application/json", schema));
  operation["requestBody"] = body;
  return {{"post", operation}};
}

ordered_json texts(const char* summary, Endpoint where, const ServedModel& model) {
  ordered_json answers = {{"200", {{"description", "texts, or events with stream: true"}}}};
  answers["200"]["content"] = {{"application/json", {{"schema", {{"type", "object"}}}}},
                               {"text/event-stream", {{"schema", {{"type", "string"}}}}}};
  return post(operation(summary, answers), request_schema(where, model));
}

ordered_json object_schema(const ordered_json& properties, const char* required) {
  return {{"type", "object"}, {"properties", properties}, {"required", {required}}};
}

}  // namespace

std::string openapi_json(const ServedModel& model, const std::string& version) {
  const ordered_json id = {{"type", "integer"}, {"minimum", 0}, {"maximum", model.vocab_size - 1}};
  ordered_json paths = {
      {"/v1/completions", texts("Continue texts", Endpoint::kCompletions, model)},
      {"/v1/chat/completions", texts("Answer in a conversation", Endpoint::kChat, model)},
      {"/v1/models", {{"get", json_operation("The models that are served")}}},
      {"/tokenize", post(json_operation("Text to token ids"),
                         object_schema({{"prompt", {{"type", "string"}}},
                                        {"add_special_tokens", {{"type", "boolean"}}}},
                                       "prompt"))},
      {"/detokenize", post(json_operation("Token ids to text"),
                           object_schema({{"tokens", array_of(id, 1 << 20)}}, "tokens"))},
      {"/tokenizer_info", {{"get", json_operation("Special tokens and chat template")}}},
      {"/version", {{"get", json_operation("The program's version")}}},
      {"/health", {{"get", json_operation("Whether requests are taken")}}},
      {"/livez", {{"get", json_operation("Whether the program runs")}}}};
  for (const auto& [path, what, type] :
       {std::tuple("/metrics", "Metrics for Prometheus", "text/plain"),
        std::tuple("/", "A page to chat with the model", "text/html")}) {
    paths[path]["get"] =
        operation(what, {{"200", answer("the answer", type, {{"type", "string"}})}});
  }
  return ordered_json{
      {"openapi", "3.1.0"},
      {"info",
       {{"title", "dmc"},
        {"version", version},
        {"description", "OpenAI-compatible API on a compressed KV cache"}}},
      {"paths", paths},
      {"components", {{"securitySchemes", {{"key", {{"type", "http"}, {"scheme", "bearer"}}}}}}}}
      .dump();
}

}  // namespace dmc::server
