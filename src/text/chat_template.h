// Chat templates: from messages to the prompt a model was trained on. The language is the part of
// Jinja that published templates use, with the settings and functions that `transformers` adds.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/byte_range.h"

namespace dmc::text {

struct ChatPrompt {
  std::string text;
  // What came in with the messages: Tokenizer::encode_marked() finds no special tokens there.
  std::vector<ByteRange> untrusted;
};

class ChatTemplate {
 public:
  // `origin` names the file. Error(kData) with file and line for what does not parse.
  ChatTemplate(const std::string& source, std::string origin);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;

  // The template of a model, a directory or a GGUF file: chat_template.jinja, else "chat_template"
  // in tokenizer_config.json (the one named "default" where there are several); nothing if the
  // model has none.
  static std::optional<ChatTemplate> find(const std::filesystem::path& model);

  // `messages` is an array of objects as in the OpenAI API, `variables` what else the template may
  // ask for (tools, enable_thinking, ...): their strings are the user's, not to be trusted. Both
  // nest at most 64 levels, as parse_json() sees to. The special tokens (bos_token, ...) are those
  // of the model directory. Error(kInvalidArgument) with the line of the template if it refuses the
  // messages by raise_exception(), Error(kData) if it fails in another way or needs more than the
  // limits of chat/runtime.h.
  ChatPrompt render(const nlohmann::ordered_json& messages, bool add_generation_prompt,
                    const nlohmann::ordered_json& variables = {}) const;

  // Sets a variable that the model, not the user, vouches for, such as "bos_token".
  void set_trusted(const std::string& name, const std::string& value);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dmc::text
