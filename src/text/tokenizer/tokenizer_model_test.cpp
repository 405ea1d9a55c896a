// tokenizer.model files, made here. Parity with sentencepiece and tiktoken is tested in
// tests/parity/test_tokenizer.py.
#include "text/tokenizer/tokenizer_model.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <fstream>

#include "base/error.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "text/tokenizer.h"

namespace dmc::text {
namespace {

namespace fs = std::filesystem;

constexpr int kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;
constexpr int kUnigram = 1, kBpe = 2;

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string number_field(uint64_t field, uint64_t value) {
  return varint(field << 3) + varint(value);
}

std::string bytes_field(uint64_t field, const std::string& bytes) {
  return varint(field << 3 | 2) + varint(bytes.size()) + bytes;
}

std::string real_field(uint64_t field, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  std::string bytes = varint(field << 3 | 5);
  for (int i = 0; i < 4; ++i) bytes += static_cast<char>(bits >> (8 * i));
  return bytes;
}

std::string piece(const std::string& text, float score, int type = kNormal) {
  return bytes_field(1, bytes_field(1, text) + real_field(2, score) +
                            number_field(3, static_cast<uint64_t>(type)));
}

// Letters a to d, a few words over them, the space and, if asked, the 256 bytes.
std::string model_of(int algorithm, bool byte_fallback, const std::string& more_pieces = "") {
  std::string model =
      piece("<unk>", 0, kUnknown) + piece("<s>", 0, kControl) + piece("</s>", 0, kControl);
  float score = -1;
  for (const char* text : {"ab", "▁a", "cd", "abcd", "aa", "▁▁", "aaaa", "▁", "a", "b", "c", "d"}) {
    model += piece(text, score--);
  }
  for (int b = 0; byte_fallback && b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", static_cast<unsigned>(b));
    model += piece(text, 0, kByte);
  }
  return model + more_pieces +
         bytes_field(2, number_field(3, static_cast<uint64_t>(algorithm)) +
                            number_field(35, byte_fallback)) +
         bytes_field(3, number_field(4, 0));  // extra spaces stay
}

class TokenizerModel : public testing::Test {
 protected:
  Tokenizer read(const std::string& bytes) const {
    std::ofstream(dir_ / "tokenizer.model", std::ios::binary) << bytes;
    return Tokenizer(dir_);
  }
  const TempFolder folder_of_test_;
  const fs::path dir_ = folder_of_test_.path();
};

TEST_F(TokenizerModel, TextComesBack) {
  for (int algorithm : {kBpe, kUnigram}) {
    const Tokenizer tokenizer = read(model_of(algorithm, /*byte_fallback=*/true));
    for (const char* text : {"", "a", " a", "ab  cd", "aaaaa\n", "日本 é", "<s>", "▁"}) {
      const std::string wanted = std::string(text) == "▁" ? " " : text;
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), wanted) << algorithm << " " << text;
    }
  }
}

TEST_F(TokenizerModel, BeginningOfTextIsAdded) {
  const Tokenizer tokenizer = read(model_of(kBpe, false));
  std::vector<int32_t> wanted = {1};
  for (int32_t id : tokenizer.encode("ab")) wanted.push_back(id);
  EXPECT_EQ(tokenizer.encode_prompt("ab"), wanted);
  EXPECT_TRUE(tokenizer.is_special(1));
  EXPECT_FALSE(tokenizer.is_special(3));
}

// A stream that begins a text drops the space the tokenizer put there; one that goes on keeps it.
TEST_F(TokenizerModel, StreamsKnowWhereTheyBegin) {
  const Tokenizer tokenizer = read(model_of(kBpe, true));
  for (bool continues : {false, true}) {
    StreamDecoder decoder(tokenizer, continues);
    std::string text;
    for (int32_t id : tokenizer.encode("ab  é cd")) text += decoder.push(id);
    EXPECT_EQ(text + decoder.finish(), continues ? " ab  é cd" : "ab  é cd");
  }
}

// Words are taken one by one only because no piece reaches over their borders: the ids are those
// of the whole text. The slow twin is the same model with a piece that reaches over.
TEST_F(TokenizerModel, WordByWordIsTheSame) {
  const Tokenizer by_word = read(model_of(kBpe, false));
  const Tokenizer whole = read(model_of(kBpe, false, piece("d▁d", -100)));
  Rng rng(1);
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (uint64_t n = rng.below(30); n > 0; --n) text += "abc  x"[rng.below(6)];
    EXPECT_EQ(by_word.encode(text), whole.encode(text)) << "round " << round << ": " << text;
  }
}

TEST_F(TokenizerModel, LongRunsOfOneCharacterAreNoTrap) {
  for (int algorithm : {kBpe, kUnigram}) {
    const Tokenizer tokenizer = read(model_of(algorithm, true));
    for (const char* unit : {"a", " ", "é", "▁"}) {
      std::string text;
      while (text.size() < (1 << 20)) text += unit;
      EXPECT_GE(tokenizer.encode(text).size(), text.size() / 8);
    }
  }
}

// Every cut and many wrong bytes: refused with the file's name, or read, but never worse.
TEST_F(TokenizerModel, DamagedFilesAreRefused) {
  const std::string good = model_of(kBpe, false);
  Rng rng(2);
  const auto try_to_read = [&](const std::string& bytes) {
    try {
      read(bytes).encode("ab cd");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData) << error.what();
      EXPECT_NE(std::string(error.what()).find("tokenizer.model"), std::string::npos);
    }
  };
  for (size_t size = 0; size < good.size(); ++size) try_to_read(good.substr(0, size));
  for (int round = 0; round < 300; ++round) {
    std::string bytes = good;
    bytes[rng.below(bytes.size())] = static_cast<char>(rng.below(256));
    try_to_read(bytes);
  }
  for (const std::string& bytes :
       {std::string(), std::string("\n\x01"), piece("a", std::nanf("")), piece("", 0),
        piece("x", 0, 5), piece(std::string(1000, 'x'), 0), model_of(3, false),
        bytes_field(1, std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))}) {
    EXPECT_THROW(read(bytes), Error);
  }
}

TEST_F(TokenizerModel, TiktokenLinesAreReadStrictly) {
  for (const char* line : {"YQ== 0x", "YQ== -1", "YQ==", "YQ= 1", "Y!== 1", "YQ== 99999999", " 1",
                           "YQ== 1 2", "======== 1"}) {
    try {
      read(line);
      ADD_FAILURE() << "accepted: " << line;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("line 1"), std::string::npos) << error.what();
    }
  }
  const Tokenizer tokenizer = read("YQ== 0\r\nYg== 1\nYWI= 2\n\nYWJh 3");
  EXPECT_EQ(tokenizer.encode("abab"), (std::vector<int32_t>{2, 2}));
  EXPECT_EQ(tokenizer.encode("aba"), std::vector<int32_t>{3});
}

}  // namespace
}  // namespace dmc::text
