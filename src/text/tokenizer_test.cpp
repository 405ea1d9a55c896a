#include "text/tokenizer.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/cpu_watch.h"
#include "base/error.h"
#include "base/rng.h"
#include "base/utf8.h"

namespace dmc::text {
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

// "<|endoftext|>" in what a user wrote is text; what the template wrote around it counts.
TEST(Tokenizer, SpecialTokensInUntrustedTextAreText) {
  const std::string token = "<|endoftext|>", text = token + "x" + token + "y" + token;
  const int32_t special = *builtin().token_id(token);
  const size_t second = token.size() + 1;
  const auto count = [&](std::vector<ByteRange> untrusted) {
    return std::ranges::count(builtin().encode_marked(text, untrusted), special);
  };
  EXPECT_EQ(count({}), 3);
  EXPECT_EQ(count({{second, second + token.size()}}), 2);
  EXPECT_EQ(count({{second + 2, second + 3}}), 2);  // a token that is only partly trusted
  EXPECT_EQ(count({{0, 1}, {second, second + 1}, {text.size() - 1, text.size()}}), 0);
  EXPECT_EQ(builtin().encode_marked(text, {}), builtin().encode(text, true));
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

class TokenizerFile : public testing::Test {
 protected:
  static nlohmann::json builtin_json() {
    return nlohmann::json::parse(std::ifstream("models/builtin/tokenizer.json"));
  }
  Tokenizer read(const nlohmann::json& root) const {
    std::ofstream(dir_ / "tokenizer.json") << root;
    return Tokenizer(dir_);
  }
  const TempFolder folder_of_test_;
  const fs::path dir_ = folder_of_test_.path();
};

TEST_F(TokenizerFile, BothFormsOfMergesAreTheSame) {
  auto root = builtin_json();
  for (auto& merge : root["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  const std::string text = "def forward(self, input):\n    return torch.relu(input)\n";
  EXPECT_EQ(read(root).encode(text), builtin().encode(text));
}

// Llama 3's files: the pattern is spelled out, and a piece that is a token needs no merges.
TEST_F(TokenizerFile, LlamaThreeForm) {
  constexpr auto kPattern =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
      " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  auto root = builtin_json();
  root["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern", {{"Regex", kPattern}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  root["model"]["vocab"]["qzx"] = 2048;  // no merge leads to it
  EXPECT_GT(read(root).encode("qzx").size(), 1u);
  root["model"]["ignore_merges"] = true;
  const Tokenizer tokenizer = read(root);
  EXPECT_EQ(tokenizer.encode("qzx"), std::vector<int32_t>{2048});
  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    const std::string text = random_text(rng, 60);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << "round " << round;
  }
  const std::string blank(1 << 20, ' ');
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(blank)), blank);
}

// Many marks on one base, in the worst order: canonical ordering must not be a bubble sort.
TEST_F(TokenizerFile, LongRunsOfAccentsAreNoTrap) {
  auto root = builtin_json();
  root["normalizer"] = {{"type", "NFC"}};
  const Tokenizer tokenizer = read(root);
  std::string text = "a", wanted = "\u1ea1";  // with the dot below that comes first
  for (int i = 0; i < 1 << 18; ++i) text += "\u0301\u0323";
  for (int i = 1; i < 1 << 18; ++i) wanted += "\u0323";
  for (int i = 0; i < 1 << 18; ++i) wanted += "\u0301";
  EXPECT_TRUE(tokenizer.decode(tokenizer.encode(text)) == wanted);
}

TEST_F(TokenizerFile, WhatWouldChangeTheIdsIsRefused) {
  using nlohmann::json;
  const json kScores = json::array({json::array({"a", -1.0})});
  const std::pair<const char*, json> kWrong[] = {
      {"/model/continuing_subword_prefix", "##"},
      {"/model/end_of_word_suffix", "</w>"},
      {"/model/type", "WordLevel"},
      {"/model", {{"type", "Unigram"}, {"vocab", kScores}}},  // without unk_id
      {"/model", {{"type", "Unigram"}, {"vocab", kScores}, {"unk_id", 1}}},
      {"/model", {{"type", "Unigram"}, {"vocab", kScores}, {"unk_id", 0}, {"byte_fallback", true}}},
      {"/model/vocab/a", 4294967296},
      {"/model/vocab/a", 1.5},
      {"/added_tokens/0/id", -1},
      {"/normalizer", {{"type", "Nmt"}}},
      {"/pre_tokenizer", {{"type", "UnicodeScripts"}}},
      {"/decoder", {{"type", "CTC"}}},
      {"/post_processor", {{"type", "Surprise"}}},
      {"/added_tokens/0/content", std::string(5000, 'x')}};
  for (const auto& [where, value] : kWrong) {
    auto root = builtin_json();
    root[nlohmann::json::json_pointer(where)] = value;
    EXPECT_THROW(read(root), Error) << where << " " << value;
  }
}

nlohmann::json sequence_of(const char* list, const nlohmann::json& step, size_t times) {
  nlohmann::json sequence = {{"type", "Sequence"}, {list, nlohmann::json::array()}};
  for (size_t i = 0; i < times; ++i) sequence[list].push_back(step);
  return sequence;
}

nlohmann::json replacing(const std::string& from, const std::string& to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

std::string complaint(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kData);
    return error.what();
  }
  return "no error";
}

// Each of these made a text of gigabytes, or took for ever, out of a file of some kilobytes.
TEST_F(TokenizerFile, WhatDoublesATextEndsSoon) {
  const auto limits = [&](const char* key, const nlohmann::json& spec, const std::string& text) {
    auto root = builtin_json();
    root[key] = spec;
    const CpuWatch watch;
    const std::string sentence = complaint([&] { read(root).encode(text); });
    EXPECT_NE(sentence.find("too much work"), std::string::npos) << key << ": " << sentence;
    EXPECT_LT(watch.seconds(), 20.0 * kSlowdown) << key;
  };
  const std::string text(2000, 'a');
  limits("decoder", sequence_of("decoders", replacing("a", "aa"), 50), "");
  limits("normalizer", sequence_of("normalizers", replacing("a", "aa"), 50), text);
  limits("normalizer", replacing("a", std::string(1 << 20, 'b')), text);
}

TEST_F(TokenizerFile, LongPipelinesAreRefused) {
  for (const auto& [key, list, step] :
       {std::tuple{"decoder", "decoders", replacing("a", "b")},
        {"normalizer", "normalizers", nlohmann::json{{"type", "Lowercase"}}},
        {"pre_tokenizer", "pretokenizers", nlohmann::json{{"type", "WhitespaceSplit"}}}}) {
    auto root = builtin_json();
    root[key] = sequence_of(list, step, 65);
    EXPECT_NE(complaint([&] { read(root); }).find("more than 64"), std::string::npos) << key;
  }
}

// A prefix is put before every section between added tokens.
TEST_F(TokenizerFile, SectionsShareOneBudget) {
  auto root = builtin_json();
  root["normalizer"] = {{"type", "Prepend"}, {"prepend", std::string(60'000, 'p')}};
  root["added_tokens"].push_back({{"id", 1}, {"content", "|"}, {"normalized", false}});
  std::string text;
  for (int i = 0; i < 2000; ++i) text += "x|";
  EXPECT_NE(complaint([&] { read(root).encode(text); }).find("too much work"), std::string::npos);
}

// Quadratic in the text: every match is looked for up to its end, in vain.
TEST_F(TokenizerFile, SlowPatternsEndSoon) {
  for (const char* pattern : {"a+b|a", "(?=(a*))"}) {
    auto root = builtin_json();
    root["pre_tokenizer"] = sequence_of(
        "pretokenizers",
        {{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}}, 1);
    const Tokenizer tokenizer = read(root);
    const CpuWatch watch;
    const std::string sentence = complaint([&] { tokenizer.encode(std::string(1 << 18, 'a')); });
    EXPECT_LT(watch.seconds(), 15.0 * kSlowdown) << pattern << ": " << sentence;
  }
}

// A lookup for each of the 512 bytes that a token may have, at every byte.
TEST_F(TokenizerFile, LatticesAndAddedTokensAreLinear) {
  auto root = builtin_json();
  root["added_tokens"] = {{{"id", 1}, {"content", std::string(1023, 'a') + "b"}}};
  const Tokenizer tokenizer = read(root);
  const auto seconds = [&](size_t bytes) {
    const std::string text(bytes, 'a');
    const CpuWatch watch;
    complaint([&] { tokenizer.encode(text); });
    return watch.seconds();
  };
  EXPECT_LT(seconds(1 << 16), 10 * seconds(1 << 14) + 1.0);
}

TEST_F(TokenizerFile, IdsBeyondTheModelsAreRefused) {
  EXPECT_EQ(complaint([] { Tokenizer("models/builtin", 2048); }), "no error");
  EXPECT_NE(complaint([] { Tokenizer("models/builtin", 2047); }).find("ids up to 2047"),
            std::string::npos);
  auto root = builtin_json();
  root["post_processor"] = nlohmann::json::parse(
      R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}],
          "special_tokens": {"x": {"ids": [5000]}}})");
  std::ofstream(dir_ / "tokenizer.json") << root;
  EXPECT_NE(complaint([&] { Tokenizer(dir_, 2048); }).find("ids up to 5000"), std::string::npos);
}

TEST_F(TokenizerFile, IsRefusedWithItsName) {
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
      EXPECT_EQ(error.code(), ErrorCode::kData);
      EXPECT_NE(std::string(error.what()).find("tokenizer.json"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace dmc::text
