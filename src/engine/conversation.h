// A conversation of several turns on one cache: each turn takes in what is new since the last one.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/generate.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace dmc::engine {

struct Turn {
  std::string text;           // the reply
  Generation generation;      // prefill_seconds is of all that was taken in
  int64_t prompt_tokens = 0;  // the conversation so far, as the template writes it
  int64_t kept_tokens = 0;    // of them, in the cache from earlier turns
};

class Conversation {
 public:
  // All must outlive this, which owns its sequences in `runner`. `system` is the first message, ""
  // for none.
  Conversation(ModelRunner& runner, const text::Tokenizer& tokenizer,
               const text::ChatTemplate& chat, const std::string& system);

  // The model's reply to the next message; on_text is called with its text as it comes.
  // Error(kInvalidArgument) if the conversation does not fit the context or the template refuses
  // it; the conversation is then as it was, and a shorter message may follow.
  Turn reply(const std::string& message, const GenerateOptions& options,
             const std::function<void(const std::string&)>& on_text,
             const std::function<bool()>& cancelled);

  // What the last turn ended with in the cache.
  SequenceId sequence() const { return after_reply_->sequence.id(); }

 private:
  struct Held {  // a sequence and the tokens it has taken in
    Sequence sequence;
    std::vector<int32_t> tokens;
  };

  std::vector<int32_t> tokens_of(const text::ChatPrompt& prompt) const;
  // `prompt` without the words that begin a reply, which the template adds at its end.
  text::ChatPrompt without_beginning(const text::ChatPrompt& prompt,
                                     const nlohmann::ordered_json& messages);
  void resume(std::span<const int32_t> tokens);
  void take_in_message(std::span<const int32_t> tokens);

  ModelRunner& runner_;
  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate& chat_;
  nlohmann::ordered_json messages_ = nlohmann::ordered_json::array();
  std::optional<std::string> beginning_;  // of a reply, as the template writes it
  // The template may write a reply in another way than the model did (trimmed, without its
  // thoughts), and its text may have other tokens. A compressed cache cannot be rolled back to
  // where they part, so the state behind the message is kept as well; the two share their pages.
  std::optional<Held> after_message_, after_reply_;
};

}  // namespace dmc::engine
