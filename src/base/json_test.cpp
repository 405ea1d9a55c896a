#include "base/json.h"

#include <gtest/gtest.h>

#include "base/cpu_watch.h"
#include "base/error.h"
#include "base/json_fields.h"

namespace dmc {
namespace {

std::string sentence_of(const std::string& text, size_t most_values = kMostJsonValues) {
  try {
    parse_json(text, "file", most_values);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kData);
    return error.what();
  }
  return "no error";
}

TEST(Json, IsWhatTheLibraryReads) {
  for (const char* text :
       {"null", "1", "-1", "1.5", "18446744073709551615", "\"\\u00e9\\ud83d\\ude00\"", "[]", "{}",
        R"({"b": [1, {"c": null}, []], "a": {"x": true, "": "y"}, "z": -0.0})",
        R"([[[1], [2, 3]], {"k": [false]}])"}) {
    EXPECT_EQ(parse_json(text, "file"), nlohmann::json::parse(text)) << text;
  }
}

TEST(Json, RefusesDepthRepeatedKeysAndTooManyValues) {
  const auto nested = [](size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  EXPECT_EQ(sentence_of(nested(64)), "no error");
  EXPECT_NE(sentence_of(nested(66)).find("deeper than 64"), std::string::npos);
  EXPECT_NE(sentence_of(std::string(1 << 20, '[')).find("deeper than 64"), std::string::npos);
  EXPECT_EQ(sentence_of(R"({"a": 1, "b": {"a": 1}, "a": 2})"), "file: key \"a\" appears twice");
  EXPECT_EQ(sentence_of("[1, [2], 3]", 5), "no error");
  EXPECT_NE(sentence_of("[1, [2], 3]", 4).find("more JSON values"), std::string::npos);
}

// What is wrong is quoted, but neither at length nor so that a terminal obeys it.
TEST(Json, SentencesAreShortAndWithoutControls) {
  for (const std::string& text :
       {"{\"" + std::string(5000, 'k') + "\x1b[2J\": x}", std::string("\"a\x1b[31m"),
        "{\"" + std::string(5000, 'k') + "\": 1, \"" + std::string(5000, 'k') + "\": 1}"}) {
    const std::string sentence = sentence_of(text);
    EXPECT_LT(sentence.size(), 400u);
    for (const char c : sentence) EXPECT_GE(static_cast<unsigned char>(c), 0x20) << sentence;
  }
}

TEST(Json, WrongValuesAreShownShort) {
  const nlohmann::json object = {{"heads", std::string(3000, 'x') + "\x1b[2J"}};
  try {
    JsonFields(object, "config.json").size("heads");
    FAIL();
  } catch (const Error& error) {
    EXPECT_LT(std::string(error.what()).size(), 250u);
    EXPECT_NE(std::string(error.what()).find("\"heads\" is \"xxx"), std::string::npos);
  }
}

// The library's own builder took 3 s for 30,000 members and four times as long for twice as many.
TEST(Json, TimeIsLinearInTheMembersOfAnObject) {
  const auto seconds = [](int members) {
    std::string text = "{";
    for (int i = 0; i < members; ++i) {
      text +=
          (i > 0 ? ", \"" : "\"") + std::to_string(i) + R"(": {"shape": [0], "offsets": [0, 0]})";
    }
    text += "}";
    double best = 1e9;
    for (int i = 0; i < 3; ++i) {
      const CpuWatch watch;
      parse_json(text, "file");
      best = std::min(best, watch.seconds());
    }
    return best;
  };
  const double small = seconds(20'000), large = seconds(80'000);
  EXPECT_LT(large, 8 * small);
  EXPECT_LT(large, 2.0 * kSlowdown);
}

}  // namespace
}  // namespace dmc
