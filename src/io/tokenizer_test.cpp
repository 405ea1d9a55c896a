#include "io/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "base/rng.h"
#include "io/utf8.h"

namespace dmc::io {
namespace {

namespace fs = std::filesystem;

// Parity with the `tokenizers` package is tested in tests/parity/test_tokenizer.py.
const Tokenizer& builtin() {
  static const Tokenizer tokenizer("models/builtin");
  return tokenizer;
}

std::string random_text(Rng& rng, size_t characters) {
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    constexpr char32_t kRanges[][2] = {{32, 126},        {0xa0, 0x2ff},      {0x400, 0x5ff},
                                       {0x4e00, 0x9fff}, {0x1f300, 0x1f6ff}, {9, 13},
                                       {0x2000, 0x200a}};
    const auto& range = kRanges[rng.below(std::size(kRanges))];
    append_utf8(range[0] + static_cast<char32_t>(rng.below(range[1] - range[0] + 1)), &text);
  }
  return text;
}

TEST(Tokenizer, DecodingGivesTheTextBack) {
  Rng rng(1);
  for (int round = 0; round < 300; ++round) {
    const std::string text = random_text(rng, rng.below(80));
    EXPECT_EQ(builtin().decode(builtin().encode(text)), text) << "round " << round;
  }
  EXPECT_TRUE(builtin().encode("").empty());
}

TEST(Tokenizer, InvalidUtf8BecomesTheReplacementCharacter) {
  EXPECT_EQ(builtin().decode(builtin().encode("a\xff"
                                              "b\xe2\x82")),
            "a\xef\xbf\xbd"
            "b\xef\xbf\xbd");
}

TEST(Tokenizer, SpecialTokensAreParsedOnlyWhenAsked) {
  const std::string text = "x<|endoftext|>y";
  const int32_t special = *builtin().token_id("<|endoftext|>");
  const auto parsed = builtin().encode(text, true), plain = builtin().encode(text);
  EXPECT_EQ(std::ranges::count(parsed, special), 1);
  EXPECT_EQ(std::ranges::count(plain, special), 0);
  EXPECT_EQ(builtin().decode(plain), text);
}

// The incremental decoder says the same as decoding at once, and never half a character.
TEST(StreamDecoder, NeverCutsACharacter) {
  Rng rng(2);
  for (int round = 0; round < 300; ++round) {
    const std::string text = random_text(rng, 20);
    StreamDecoder decoder(builtin());
    std::string streamed;
    for (int32_t id : builtin().encode(text)) {
      const std::string piece = decoder.push(id);
      ASSERT_TRUE(utf8_is_valid(piece));
      streamed += piece;
    }
    EXPECT_EQ(streamed + decoder.finish(), text);
  }
  // Tokens in an order no text has: still valid UTF-8, equal to decoding at once.
  for (int round = 0; round < 300; ++round) {
    std::vector<int32_t> ids(12);
    for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(300));
    StreamDecoder decoder(builtin());
    std::string streamed;
    for (int32_t id : ids) streamed += decoder.push(id);
    EXPECT_EQ(streamed + decoder.finish(), builtin().decode(ids)) << "round " << round;
  }
}

// One piece as long as the text, for which naive merging would be quadratic: 256 times the text
// must not take 256 * 256 times the work, which would be minutes.
TEST(Tokenizer, LongRunsOfOneCharacterAreNoTrap) {
  for (const char* unit : {"a", " ", "\n", "é", "="}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    EXPECT_EQ(builtin().decode(builtin().encode(text)), text);
  }
}

class BadTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / ("dmc_tokenizer_test_" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }
  fs::path dir_;
};

TEST_F(BadTokenizer, IsRefusedWithItsName) {
  for (
      const char* text :
      {"", "{", "[]", "{}", R"({"model":{"type":"WordPiece"}})",
       R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"ByteLevel"}})",
       R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})",
       R"({"model":{"type":"BPE","vocab":{"a":99999999999},"merges":[]}})",
       R"({"model":{"type":"BPE","vocab":{"a":"x"},"merges":[]}})",
       R"({"model":{"type":"BPE","vocab":[],"merges":5}})"}) {
    std::ofstream(dir_ / "tokenizer.json") << text;
    try {
      Tokenizer tokenizer(dir_);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kData);
      EXPECT_NE(std::string(error.what()).find("tokenizer.json"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace dmc::io
