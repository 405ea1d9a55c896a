#include "text/corpus.h"
#include "base/temp_folder.h"

#include <bzlib.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/file.h"

namespace dmc::text {
namespace {

namespace fs = std::filesystem;

const Tokenizer& builtin() {
  static const Tokenizer tokenizer("models/builtin");
  return tokenizer;
}

class CorpusTest : public testing::Test {
 protected:
  fs::path write(const fs::path& name, const std::string& text) const {
    fs::create_directories((dir_ / name).parent_path());
    std::ofstream(dir_ / name, std::ios::binary) << text;
    return dir_ / name;
  }
  // 400 short files: one in 50 of them, about eight, is held out.
  void write_many(const fs::path& folder) const {
    for (int i = 0; i < 400; ++i) {
      const std::string number = std::to_string(i);
      write(folder / (number + ".py"), "value = " + number + "\n");
    }
  }
  const TempFolder folder_of_test_;
  const fs::path dir_ = folder_of_test_.path();
};

std::vector<std::string> texts(const Corpus& corpus) {
  std::vector<std::string> all;
  for (size_t i = 0; i < corpus.size(); ++i) all.push_back(corpus.text(i));
  return all;
}

std::string packed_gz(const std::string& content) {
  const TempFolder folder;
  const fs::path path = folder.path() / "packed";
  gzFile file = gzopen(path.c_str(), "wb");
  EXPECT_EQ(gzwrite(file, content.data(), static_cast<unsigned>(content.size())),
            static_cast<int>(content.size()));
  gzclose(file);
  return read_text_file(path);
}

std::string packed_bz2(std::string content) {
  std::string packed(2 * content.size() + 600, '\0');
  auto size = static_cast<unsigned>(packed.size());
  EXPECT_EQ(BZ2_bzBuffToBuffCompress(packed.data(), &size, content.data(),
                                     static_cast<unsigned>(content.size()), 9, 0, 0),
            BZ_OK);
  packed.resize(size);
  return packed;
}

std::string packed_zst(const std::string& content) {
  std::string packed(ZSTD_compressBound(content.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), content.data(), content.size(), 3));
  return packed;
}

std::string complaint(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kData);
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TEST_F(CorpusTest, TheSplitsShareNothingAndTogetherAreEverything) {
  write_many("");
  const Corpus train({dir_}, Split::kTrain), held_out({dir_}, Split::kHeldOut);
  std::set<std::string> all;
  for (const std::string& text : texts(train)) EXPECT_TRUE(all.insert(text).second) << text;
  for (const std::string& text : texts(held_out)) EXPECT_TRUE(all.insert(text).second) << text;
  EXPECT_EQ(all.size(), 400u);
  EXPECT_GT(held_out.size(), 0u);
  EXPECT_LT(held_out.size(), train.size() / 10);
}

// What a document is called, and where it lies, decides neither its split nor its place.
TEST_F(CorpusTest, OrderDependsOnContentAlone) {
  write_many("a");
  for (int i = 0; i < 400; ++i) {
    fs::create_directories(dir_ / "b" / std::to_string(i % 7));
    fs::copy(dir_ / "a" / (std::to_string(i) + ".py"),
             dir_ / "b" / std::to_string(i % 7) / ("z" + std::to_string(999 - i) + ".txt"));
  }
  const auto first = texts(Corpus({dir_ / "a"}, Split::kTrain));
  EXPECT_EQ(texts(Corpus({dir_ / "b"}, Split::kTrain)), first);
  EXPECT_EQ(texts(Corpus({dir_ / "b", dir_ / "a"}, Split::kTrain)), first) << "listed once";
}

TEST_F(CorpusTest, WhatIsNotTextIsLeftOut) {
  write_many("good");
  const Corpus expected({dir_ / "good"}, Split::kTrain);
  write("good/binary.py", std::string("a\0b", 3));
  write("good/latin1.py", "caf\xe9\n");
  write("good/records.jsonl", "{\"label\": 3}\n");
  write("good/other.json", "{}");
  write("good/empty.py", "");
  write("good/site-packages/x.py", "installed = True\n");
  write("good/sub/__pycache__/x.py", "cached = True\n");
  fs::create_symlink("loop.py", dir_ / "good/loop.py");
  fs::create_symlink("nowhere.py", dir_ / "good/dangling.py");
  const Corpus corpus({dir_ / "good"}, Split::kTrain);
  EXPECT_EQ(texts(corpus), texts(expected));
  EXPECT_EQ(corpus.bytes(), expected.bytes());
  EXPECT_EQ(corpus.left_out(), 3) << "binary, latin1, records";
}

TEST_F(CorpusTest, ALargeFileIsReadInPiecesThatEndWithLines) {
  std::string whole;
  for (int i = 0; whole.size() < (9 << 20); ++i) whole += "line " + std::to_string(i) + "\n";
  const Corpus corpus({write("large.txt", whole)}, Split::kAll);
  ASSERT_EQ(corpus.size(), 2u);
  EXPECT_EQ(corpus.bytes(), whole.size());
  const bool first = corpus.text(0).starts_with("line 0\n");
  EXPECT_EQ(corpus.text(first ? 0 : 1) + corpus.text(first ? 1 : 0), whole);
  EXPECT_EQ(corpus.text(0).back(), '\n');
}

TEST_F(CorpusTest, WhatIsNamedMustBeText) {
  const fs::path latin1 = write("latin1.txt", "caf\xe9\n");
  EXPECT_NE(complaint([&] { Corpus({latin1}, Split::kAll); }).find("latin1.txt: is not UTF-8"),
            std::string::npos);
  const fs::path records = write("a.jsonl", "{\"text\": \"fine\"}\n\n{\"txt\": \"x\"}\n");
  EXPECT_NE(complaint([&] { Corpus({records}, Split::kAll); }).find("a.jsonl, line 3"),
            std::string::npos);
}

TEST_F(CorpusTest, TextIsTheSameInEveryFormAndAllOfItIsThere) {
  const std::string one = "Once upon a time\n", two = "there was \u20ac\n";
  const std::string lines =
      "{\"text\": \"Once upon a time\\n\", \"id\": 1}\n{\"text\": \"there was \\u20ac\\n\"}\n";
  write("plain/1.txt", one);
  write("plain/2.md", two);
  const auto expected = texts(Corpus({dir_ / "plain"}, Split::kAll));
  EXPECT_EQ(expected.size(), 2u);
  for (const auto& [name, packed] : {std::pair{"t.jsonl", lines},
                                     {"t.jsonl.gz", packed_gz(lines)},
                                     {"t.jsonl.bz2", packed_bz2(lines)},
                                     {"t.jsonl.zst", packed_zst(lines)}}) {
    const Corpus corpus({write(name, packed)}, Split::kAll);
    EXPECT_EQ(texts(corpus), expected) << name;
    EXPECT_EQ(corpus.files(), 1) << name;
    if (std::string(name) == "t.jsonl") continue;
    const fs::path damaged =
        write("damaged-" + std::string(name), packed.substr(0, packed.size() / 2));
    EXPECT_NE(complaint([&] { Corpus({damaged}, Split::kAll); }).find("damaged"),
              std::string::npos);
  }
}

TEST_F(CorpusTest, OfFewDocumentsTheEndsAreHeldOut) {
  for (int i = 0; i < 3; ++i) {
    write(std::to_string(i) + ".txt", std::string(100'000, static_cast<char>('a' + i)));
  }
  const Corpus train({dir_}, Split::kTrain), held_out({dir_}, Split::kHeldOut);
  EXPECT_EQ(train.size(), 3u);
  EXPECT_EQ(held_out.size(), 3u);
  EXPECT_EQ(train.bytes() + held_out.bytes(), 300'000u);
  EXPECT_NEAR(static_cast<double>(held_out.bytes()), 30'000, 3);
}

TEST_F(CorpusTest, ASingleFileIsCutBetweenCharacters) {
  std::string whole;
  while (whole.size() < 3001) whole += "\u20ac";  // three bytes: most cuts would fall inside one
  const fs::path file = write("one.txt", whole);
  const Corpus train({file}, Split::kTrain), held_out({file}, Split::kHeldOut);
  EXPECT_EQ(train.text(0) + held_out.text(0), whole);
  EXPECT_EQ(held_out.bytes() % 3, 0u);
  EXPECT_NEAR(static_cast<double>(held_out.bytes()), 0.1 * static_cast<double>(whole.size()), 3);
}

TEST_F(CorpusTest, NothingToReadNamesTheFolder) {
  EXPECT_NE(complaint([&] { Corpus({dir_}, Split::kTrain); }).find(dir_.string()),
            std::string::npos);
  EXPECT_NE(complaint([&] { Corpus({dir_ / "gone"}, Split::kTrain); }).find("gone"),
            std::string::npos);
  const fs::path file = write("a.txt", std::string(1000, 'a'));
  const Corpus corpus({file}, Split::kTrain);
  fs::resize_file(file, 10);
  EXPECT_NE(complaint([&] { corpus.text(0); }).find("a.txt"), std::string::npos);
}

TEST_F(CorpusTest, TheEnvironmentNamesTheBuiltinSources) {
  ::setenv("DMC_TORCH_SOURCES", dir_.c_str(), 1);
  ::setenv("DMC_STDLIB_SOURCES", fs::temp_directory_path().c_str(), 1);
  EXPECT_EQ(builtin_corpus(Split::kTrain).size(), 2u);
  EXPECT_EQ(builtin_corpus(Split::kHeldOut), std::vector<fs::path>{dir_})
      << "held-out text is of the wheel alone";
  ::setenv("DMC_TORCH_SOURCES", (dir_ / "gone").c_str(), 1);
  EXPECT_NE(complaint([] { builtin_corpus(Split::kTrain); }).find("--data"), std::string::npos);
  ::unsetenv("DMC_TORCH_SOURCES");
  ::unsetenv("DMC_STDLIB_SOURCES");
}

TEST_F(CorpusTest, AFeedGivesEachDocumentOnceAnEpochInANewOrder) {
  write_many("");
  const Corpus corpus({dir_}, Split::kTrain);
  int64_t epoch_tokens = 0;
  for (const std::string& text : texts(corpus)) {
    epoch_tokens += static_cast<int64_t>(builtin().encode(text).size()) + 1;
  }
  EXPECT_DOUBLE_EQ(estimated_tokens(corpus, builtin()), static_cast<double>(epoch_tokens));
  TokenFeed feed(corpus, builtin(), 0, 7);
  std::vector<int32_t> first(static_cast<size_t>(epoch_tokens)), second(first.size());
  feed.read(first);
  feed.read(second);
  EXPECT_NE(first, second);
  EXPECT_EQ(std::ranges::count(first, 0), static_cast<int64_t>(corpus.size()));
  std::ranges::sort(first);
  std::ranges::sort(second);
  EXPECT_EQ(first, second);
}

TEST_F(CorpusTest, AFeedResumesExactly) {
  write_many("");
  const Corpus corpus({dir_}, Split::kTrain);
  TokenFeed feed(corpus, builtin(), 0, 7);
  for (size_t length : {1u, 5u, 100u, 1999u, 4001u}) {  // the later ones are past the first epoch
    std::vector<int32_t> skipped(length), expected(300), resumed(300);
    feed.read(skipped);
    TokenFeed other(corpus, builtin(), 0, 7);
    other.seek(feed.position());
    feed.read(expected);
    other.read(resumed);
    EXPECT_EQ(resumed, expected) << "after " << length;
  }
  EXPECT_GT(feed.position().epoch, 0);
  const auto documents = static_cast<int64_t>(corpus.size());
  EXPECT_NE(complaint([&] { feed.seek({0, documents, 0}); }).find("resume"), std::string::npos);
}

TEST_F(CorpusTest, WindowsAreTheStreamCutUpAndCountItsBytes) {
  write_many("");
  const Corpus corpus({dir_}, Split::kTrain);
  std::vector<int32_t> stream;
  for (const std::string& text : texts(corpus)) {
    for (int32_t id : builtin().encode(text)) stream.push_back(id);
    stream.push_back(0);
  }
  const EvalWindows windows = eval_windows(corpus, builtin(), 0, 32, 20);
  ASSERT_EQ(windows.tokens.size(), 20u);
  ASSERT_EQ(windows.bytes.size(), 20u);
  for (size_t w = 0; w < 20; ++w) {
    const auto& tokens = windows.tokens[w];
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), stream.begin() + 32 * w,
                           stream.begin() + 32 * (w + 1)));
    int64_t bytes = 0;
    for (size_t i = 1; i < tokens.size(); ++i) {
      if (tokens[i] != 0) bytes += static_cast<int64_t>(builtin().token_bytes(tokens[i]).size());
    }
    EXPECT_EQ(windows.bytes[w], bytes) << "window " << w;
  }
  EXPECT_FALSE(windows.whole);
  const auto full = eval_windows(corpus, builtin(), 0, 32, 1 << 20);
  EXPECT_EQ(full.tokens.size(), stream.size() / 32);
  EXPECT_EQ(full.bytes.size(), full.tokens.size());
  const auto all = eval_windows(corpus, builtin(), 0, 32, 0);
  EXPECT_TRUE(all.whole);
  ASSERT_NE(stream.size() % 32, 1u);
  EXPECT_EQ(all.total_tokens(), static_cast<int64_t>(stream.size()));
  EXPECT_EQ(all.tokens.back().size(), stream.size() % 32) << "the last one may be short";
  EXPECT_THROW(eval_windows(corpus, builtin(), 0, 1 << 20, 1), Error);
}

// What a tokenizer lost of the text is no text that the model predicted.
TEST_F(CorpusTest, TheUnknownTokenStandsForNoBytes) {
  write("tokenizer/tokenizer.json",
        R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "decoder": {"type": "Fuse"},
            "model": {"type": "BPE", "vocab": {"<unk>": 0, "a": 1, "b": 2, "\n": 3},
                      "merges": [], "unk_token": "<unk>"}})");
  const Tokenizer tokenizer(dir_ / "tokenizer");
  EXPECT_EQ(tokenizer.unknown_id(), 0);
  const Corpus corpus({write("text.txt", "abzab\n")}, Split::kAll);
  const EvalWindows windows = eval_windows(corpus, tokenizer, 3, 100, 0);
  EXPECT_EQ(windows.tokens.at(0), (std::vector<int32_t>{1, 2, 0, 1, 2, 3, 3}));
  EXPECT_EQ(windows.bytes.at(0), 3) << "the first token is given, <unk> and separators count 0";
  EXPECT_EQ(builtin().unknown_id(), std::nullopt);
}

}  // namespace
}  // namespace dmc::text
