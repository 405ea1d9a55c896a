// The API without sockets, on a model that is none: what is answered, whatever comes.
#include "server/api.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <limits>

#include "base/rng.h"
#include "engine/fake_runner.h"
#include "server/fields.h"
#include "server/json_text.h"
#include "server/text_writer.h"

namespace dmc::server {
namespace {

using nlohmann::json;

constexpr auto kModel = "models/builtin";

class Kept : public Exchange {
 public:
  void respond(HttpResponse response) override {
    const std::lock_guard lock(mutex_);
    EXPECT_FALSE(done_);
    answer = std::move(response);
    done_ = true;
    changed_.notify_all();
  }
  void begin_events(Headers) override { answer.status = 200; }
  bool write(std::string_view events) override {
    answer.body += events;
    return true;
  }
  void finish() override { respond(std::move(answer)); }
  void when_gone(std::function<void()>) override {}
  HttpResponse wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return done_; }));
    return answer;
  }
  HttpResponse answer;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
};

class ApiTest : public testing::Test {
 public:
  HttpResponse ask(const std::string& path, const std::string& body) {
    const auto exchange = std::make_shared<Kept>();
    api_.handle({"POST", path, "", body, "localhost", "", "application/json"}, exchange);
    return exchange->wait();
  }

 protected:
  static ServedModel model() {
    ServedModel model{"fake", "fake", 0, 200, engine::FakeRunner::kVocab, text::Tokenizer(kModel)};
    model.chat.emplace("{% for m in messages %}{{ m.content }}{% endfor %}", "template");
    model.layers = 1, model.kv_heads = 2;
    return model;
  }
  engine::FakeRunner runner_{400, 200};
  ServedModel model_ = model();
  engine::EngineLoop loop_{runner_, {.scheduler = {.max_sequences = 8}}};
  Api api_{model_, loop_, {}};
};

// A value that a hostile client might send.
json random_value(Rng& rng, int depth) {
  switch (rng.below(depth > 2 ? 9 : 12)) {
    case 0:
      return nullptr;
    case 1:
      return rng.below(2) == 0;
    case 2:
      return static_cast<int64_t>(rng.below(40));
    case 3:
      return -static_cast<int64_t>(rng.below(5));
    case 4:
      return rng.uniform() * 4.0 - 2.0;
    case 5:
      return rng();
    case 6:
      return std::numeric_limits<int64_t>::min();
    case 7:
      return "text <|endoftext|> \xf0\x9f\x99\x82";
    case 8:
      return "";
    case 9:
    case 10: {
      json list = json::array();
      for (uint64_t n = rng.below(4); n > 0; --n) list.push_back(random_value(rng, depth + 1));
      return list;
    }
    default:
      return {{"type", random_value(rng, depth + 1)},
              {"7", random_value(rng, depth + 1)},
              {"role", "user"},
              {"content", random_value(rng, depth + 1)}};
  }
}

// Each body is a good one with a few fields of the table set to anything: it is answered, or
// refused with the field's name, and never a failure of ours.
TEST_F(ApiTest, AnyValueOfAnyFieldIsAnsweredOrRefused) {
  Rng rng(5);
  int answered = 0;
  const auto fields = request_fields();
  for (int round = 0; round < 3000; ++round) {
    const bool chats = rng.below(2) == 0;
    json body = {{"max_tokens", 3}};
    if (chats) {
      body["messages"] = {{{"role", "user"}, {"content", "\x01\x02"}}};
    } else {
      body["prompt"] = {1, 2, 3};
    }
    for (uint64_t n = rng.below(4); n > 0; --n) {
      body[std::string(fields[rng.below(fields.size())].name)] = random_value(rng, 0);
    }
    const auto answer = ask(chats ? "/v1/chat/completions" : "/v1/completions", body.dump());
    ASSERT_TRUE(answer.status == 200 || answer.status == 400 || answer.status == 404)
        << answer.status << " " << body << answer.body;
    answered += answer.status == 200 ? 1 : 0;
    if (answer.status != 200) {
      ASSERT_TRUE(json::parse(answer.body)["error"]["message"].is_string());
    } else if (!answer.body.starts_with("data: ")) {
      ASSERT_TRUE(json::parse(answer.body)["choices"].is_array()) << answer.body;
    }
  }
  EXPECT_GT(answered, 300);
  EXPECT_EQ(loop_.state().load.running, 0);
}

TEST_F(ApiTest, BytesThatAreNoJsonAreRefused) {
  Rng rng(6);
  const std::string good = R"({"prompt":[1,2],"max_tokens":2,"logprobs":1,"stop":["a"]})";
  for (int round = 0; round < 3000; ++round) {
    std::string body = good;
    for (uint64_t n = 1 + rng.below(3); n > 0; --n) {
      body[rng.below(body.size())] = static_cast<char>(rng.below(256));
    }
    const int status = ask("/v1/completions", body).status;
    ASSERT_TRUE(status == 200 || status == 400) << body;
  }
}

TEST(ApiKeys, OneOfThemAndNothingElse) {
  const std::vector<std::string> keys = {"alpha", "beta-2"};
  EXPECT_TRUE(is_key("alpha", keys));
  EXPECT_TRUE(is_key("beta-2", keys));
  for (const char* wrong : {"", "alph", "alphaa", "beta", "alpha\n"}) {
    EXPECT_FALSE(is_key(wrong, keys)) << wrong;
  }
  EXPECT_FALSE(is_key(std::string("alpha\0", 6), keys));
  EXPECT_FALSE(is_key(std::string(5000, 'a'), keys));
}

TEST(JsonText, ReadsBackAsItWas) {
  const std::string text = "a\"b\\c\n\t\x01\x7f é \xe2\x80\xa8\xe2\x80\xa9 \xf0\x9f\x99\x82";
  EXPECT_EQ(json::parse(json_string(text)), text);
  EXPECT_EQ(json_string(text).find("\xe2\x80\xa8"), std::string::npos);
  Rng rng(1);
  for (int i = 0; i < 10000; ++i) {
    const auto value = static_cast<float>((rng.uniform() - 0.9) * 50.0);
    std::string out;
    append_json_number(&out, value);
    EXPECT_EQ(static_cast<float>(json::parse(out).get<double>()), value);
  }
  std::string out;
  append_json_number(&out, -std::numeric_limits<float>::infinity());
  EXPECT_EQ(out, "-9999");
}

// Whatever is cut where, pieces are whole characters and together the text.
TEST(TextWriter, PiecesAreTheText) {
  const text::Tokenizer tokenizer(kModel);
  const std::string text = "naïve 🙂 text – with\nümlauts 漢字 and more";
  const std::vector<int32_t> tokens = tokenizer.encode(text);
  TextWriter writer(tokenizer, true, true);
  std::string shown;
  for (int32_t token : tokens) {
    const std::string piece = writer.push(token);
    EXPECT_TRUE(json::parse(json_string(piece)) == piece) << "whole characters";
    shown += piece;
  }
  EXPECT_EQ(shown + writer.finish(), text);
}

}  // namespace
}  // namespace dmc::server
