#include "text/chat_template.h"

#include <map>
#include <stdexcept>

#include "base/error.h"
#include "base/json.h"
#include "base/quoted.h"
#include "base/utf8.h"
#include "text/chat/builtins.h"
#include "text/chat/parser.h"
#include "text/model_text.h"

namespace dmc::text {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr auto kOwnFile = "chat_template.jinja", kConfigFile = "tokenizer_config.json";
constexpr size_t kLargestTemplate = size_t{1} << 20;
constexpr size_t kLongestComplaint = 200;  // characters
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                          "sep_token", "cls_token", "mask_token"};

// A value of tokenizer_config.json: a string, or an added token with its "content".
std::optional<std::string> token_text(const nlohmann::json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object() && found->contains("content") && (*found)["content"].is_string()) {
    return (*found)["content"].get<std::string>();
  }
  return std::nullopt;
}

// "chat_template" is a string, or a list of {"name", "template"}.
std::optional<std::string> template_text(const nlohmann::json& config) {
  const auto found = config.find("chat_template");
  if (found == config.end()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) return std::nullopt;
  for (const auto& entry : *found) {
    const nlohmann::json named = entry.is_object() ? entry : nlohmann::json::object();
    const bool is_default = named.contains("name") && named["name"] == "default";
    if (is_default && named.contains("template") && named["template"].is_string()) {
      return named["template"].get<std::string>();
    }
  }
  return std::nullopt;
}

nlohmann::json read_config(const fs::path& model) {
  const auto text = read_model_text(model, kConfigFile, size_t{64} << 20);
  if (!text) return nlohmann::json::object();
  const std::string origin = model_text_origin(model, kConfigFile);
  nlohmann::json config = parse_json(*text, origin);
  if (!config.is_object()) throw data_error(origin + " is not a JSON object");
  return config;
}

}  // namespace

struct ChatTemplate::Impl {
  std::string origin;
  chat::Block block;
  std::map<std::string, std::string> trusted;

  std::string place(size_t line) const { return origin + ": line " + std::to_string(line) + ": "; }
};

ChatTemplate::ChatTemplate(const std::string& source, std::string origin)
    : impl_(std::make_unique<Impl>()) {
  impl_->origin = std::move(origin);
  if (source.size() > kLargestTemplate) {
    throw data_error(impl_->origin + ": a chat template of " + std::to_string(source.size()) +
                     " bytes is longer than the limit of " + std::to_string(kLargestTemplate));
  }
  try {
    impl_->block = chat::parse_template(utf8_repaired(source));
  } catch (const chat::SyntaxError& error) {
    throw data_error(impl_->place(error.line) + printable(error.message, kLongestComplaint));
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;

std::optional<ChatTemplate> ChatTemplate::find(const fs::path& model) {
  const nlohmann::json config = read_config(model);
  std::optional<ChatTemplate> found;
  if (const auto own_file = read_model_text(model, kOwnFile, kLargestTemplate)) {
    found.emplace(*own_file, model_text_origin(model, kOwnFile));
  } else if (const auto text = template_text(config)) {
    found.emplace(*text, model_text_origin(model, kConfigFile) + ": chat_template");
  }
  for (const char* name : kSpecialTokens) {
    const auto text = token_text(config, name);
    if (found && text) found->set_trusted(name, *text);
  }
  return found;
}

void ChatTemplate::set_trusted(const std::string& name, const std::string& value) {
  impl_->trusted[name] = utf8_repaired(value);
}

ChatPrompt ChatTemplate::render(const ordered_json& messages, bool add_generation_prompt,
                                const ordered_json& variables) const {
  chat::Scope globals(nullptr);
  chat::Runtime runtime(&globals);
  try {
    for (const auto& [name, value] : variables.items()) {
      globals.set(name, chat::from_json(value, /*untrusted=*/true));
    }
    // Ours come last: what a request brings along cannot take their place.
    chat::add_global_functions(&globals);
    for (const auto& [name, value] : impl_->trusted) globals.set(name, chat::Value(value));
    globals.set("messages", chat::from_json(messages, /*untrusted=*/true));
    globals.set("add_generation_prompt", chat::Value(add_generation_prompt));
    chat::run_block(impl_->block, runtime, runtime.root);
  } catch (const chat::RuntimeError& error) {
    const std::string message =
        impl_->place(error.line) + printable(error.message, kLongestComplaint);
    throw error.raised ? invalid_argument(message) : data_error(message);
  } catch (const std::logic_error& error) {  // from values, which do not know their line
    throw data_error(impl_->place(runtime.line()) + printable(error.what(), kLongestComplaint));
  }
  const chat::Text text = runtime.take_output();
  return {text.bytes(), text.untrusted()};
}

}  // namespace dmc::text
