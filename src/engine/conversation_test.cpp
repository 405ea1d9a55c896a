#include "engine/conversation.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace dmc::engine {
namespace {

constexpr auto kModel = "models/builtin";
constexpr int32_t kEnd = 1;

// A model whose next token depends on all it has seen, so that any slip changes the text.
class HistoryRunner : public ModelRunner {
 public:
  int64_t vocab_size() const override { return 2048; }
  int64_t max_positions() const override { return 400; }
  SequenceId add_sequence() override {
    seen[++last_];
    return last_;
  }
  SequenceId fork(SequenceId parent) override {
    seen[++last_] = seen.at(parent);
    return last_;
  }
  void release(SequenceId sequence) override { EXPECT_EQ(seen.erase(sequence), 1u); }
  int64_t length(SequenceId sequence) const override { return std::ssize(seen.at(sequence)); }
  StepResult step(std::span<const StepItem> items) override {
    std::vector<int32_t>& tokens = seen.at(items[0].sequence);
    tokens.insert(tokens.end(), items[0].tokens.begin(), items[0].tokens.end());
    if (items[0].ends_prompt) of_prompts += std::ssize(items[0].tokens);
    return {logits(tokens)};
  }

  std::map<SequenceId, std::vector<int32_t>> seen;
  int64_t of_prompts = 0;  // tokens

 private:
  // Letters and now and then the end.
  std::vector<float> logits(const std::vector<int32_t>& tokens) const {
    uint32_t hash = 17;
    for (int32_t token : tokens) hash = (hash ^ static_cast<uint32_t>(token)) * 16777619u;
    const auto choice = static_cast<int32_t>((hash >> 16) % 30);
    std::vector<float> result(2048, 0.0f);
    result[choice < 26 ? static_cast<size_t>(
                             tokenizer_.encode(std::string(1, static_cast<char>('a' + choice)))[0])
                       : static_cast<size_t>(kEnd)] = 1.0f;
    return result;
  }
  text::Tokenizer tokenizer_{kModel};
  SequenceId last_ = 0;
};

GenerateOptions greedy() {
  return {.max_tokens = 12, .stop_ids = {kEnd}, .sampling = {.temperature = 0}};
}

struct Case {
  const char* name;
  const char* chat;  // how a template writes the messages
};
constexpr Case kTemplates[] = {
    {"Plain",
     "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
     "{% if add_generation_prompt %}[assistant]{% endif %}"},
    {"RepliesRewritten",
     "{% for m in messages %}[{{ m.role }}]{{ m.content | upper if m.role == 'assistant' else "
     "m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"},
    {"ReplyBegunInAnotherWay",
     "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}"
     "{% if add_generation_prompt %}[assistant]<no thoughts>{% endif %}"},
    {"AllRewritten",
     "{{ messages | length }}{% for m in messages %}[{{ m.role }}]{{ m.content }}\n"
     "{% endfor %}[assistant]"},
};

class Templates : public testing::TestWithParam<Case> {};

// The slow twin takes the whole conversation in anew for each reply.
TEST_P(Templates, RepliesAreThoseOfAFreshCache) {
  const text::Tokenizer tokenizer(kModel);
  const text::ChatTemplate chat(GetParam().chat, "template");
  HistoryRunner runner;
  auto messages = nlohmann::ordered_json::array({{{"role", "system"}, {"content", "short"}}});
  {
    Conversation conversation(runner, tokenizer, chat, "short");
    for (const char* message : {"how are you?", "why", "tell me more, please", "x"}) {
      std::string shown;
      const Turn turn = conversation.reply(
          message, greedy(), [&](const std::string& text) { shown += text; }, [] { return false; });

      messages.push_back({{"role", "user"}, {"content", message}});
      const std::vector<int32_t> prompt = tokenizer.encode(chat.render(messages, true).text, true);
      HistoryRunner fresh;
      const SequenceId sequence = fresh.add_sequence();
      const Generation expected = generate(
          fresh, sequence, prompt, greedy(), [](int32_t) {}, [] { return false; });
      EXPECT_EQ(turn.generation.tokens, expected.tokens) << message;
      EXPECT_EQ(turn.generation.stop, expected.stop) << message;
      EXPECT_EQ(runner.seen.at(conversation.sequence()), fresh.seen.at(sequence)) << message;
      EXPECT_EQ(shown, turn.text);
      EXPECT_EQ(turn.prompt_tokens, static_cast<int64_t>(prompt.size()));
      messages.push_back({{"role", "assistant"}, {"content", turn.text}});
    }
  }
  EXPECT_TRUE(runner.seen.empty()) << "sequences that nobody released";
}

INSTANTIATE_TEST_SUITE_P(Table, Templates, testing::ValuesIn(kTemplates),
                         [](const auto& test) { return std::string(test.param.name); });

// Tokens that each of three turns finds in the cache.
std::vector<int64_t> kept(const Case& c) {
  const text::Tokenizer tokenizer(kModel);
  const text::ChatTemplate chat(c.chat, "template");
  HistoryRunner runner;
  Conversation conversation(runner, tokenizer, chat, "");
  std::vector<int64_t> result;
  int64_t before = 0;
  for (const char* message : {"how are you?", "why", "tell me more, please"}) {
    const Turn turn = conversation.reply(
        message, greedy(), [](const std::string&) {}, [] { return false; });
    EXPECT_EQ(runner.of_prompts - before, turn.prompt_tokens - turn.kept_tokens);
    before = runner.of_prompts;
    result.push_back(turn.kept_tokens);
  }
  return result;
}

TEST(Conversation, KeepsWhatTheTemplateLeavesAsItWas) {
  const std::vector<int64_t> plain = kept(kTemplates[0]);
  EXPECT_EQ(plain[0], 0);
  for (size_t other : {1u, 2u}) {  // of which the state behind the message is left
    const std::vector<int64_t> changed = kept(kTemplates[other]);
    EXPECT_GT(changed[1], 0) << kTemplates[other].name;
    EXPECT_GT(changed[2], changed[1]) << kTemplates[other].name;
    EXPECT_GT(plain[1], changed[1]) << kTemplates[other].name;
  }
  EXPECT_EQ(kept(kTemplates[3]), std::vector<int64_t>({0, 0, 0}));
}

TEST(Conversation, SaysWhenTheContextIsFull) {
  const text::Tokenizer tokenizer(kModel);
  const text::ChatTemplate chat(kTemplates[0].chat, "template");
  HistoryRunner runner;
  Conversation conversation(runner, tokenizer, chat, "");
  const auto reply = [&](const std::string& message) {
    return conversation.reply(
        message, greedy(), [](const std::string&) {}, [] { return false; });
  };
  reply("one");
  EXPECT_THROW(reply(std::string(4000, '?')), Error);
  EXPECT_GT(reply("two").kept_tokens, 0) << "what was refused is no part of the conversation";
}

// A template may be as costly as its limits allow.
TEST(Conversation, RendersLaterTurnsOnce) {
  const text::Tokenizer tokenizer(kModel);
  const text::ChatTemplate chat(std::string("{% if messages | length > 1 and not "
                                            "add_generation_prompt %}{{ raise_exception('twice') "
                                            "}}{% endif %}") +
                                    kTemplates[0].chat,
                                "template");
  HistoryRunner runner;
  Conversation conversation(runner, tokenizer, chat, "");
  for (const char* message : {"one", "two", "three"}) {
    conversation.reply(
        message, greedy(), [](const std::string&) {}, [] { return false; });
  }
}

}  // namespace
}  // namespace dmc::engine
