// Text for training and evaluation: files on disk, split by a hash of their content, so the split
// is the same on every machine that has the same files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace dmc::text {

enum class Split { kTrain, kHeldOut };

// The text files of `sources` (files, or folders searched recursively for .py, .txt, .md) that
// belong to `split`: a file is held out iff fnv1a64(content) % 50 == 0. Sorted by content hash, and
// files of equal content are listed once, so the order does not depend on paths. With a single
// file as the only source there is nothing to split by file: its last 2% are held out.
// Error(kData) naming the folder when there is nothing to read.
class Corpus {
 public:
  Corpus(std::vector<std::filesystem::path> sources, Split split);
  size_t size() const { return documents_.size(); }
  std::string text(size_t index) const;
  uint64_t bytes() const { return bytes_; }  // of all documents

 private:
  struct Document {
    uint64_t hash;
    std::filesystem::path path;
    uint64_t offset, length;
  };
  std::vector<Document> documents_;
  uint64_t bytes_ = 0;
};

// The built-in corpus: the Python sources of the torch wheel this program was built with, and (for
// training only) those of the Python standard library. The held-out part is of the pinned wheel
// alone, so its figures are comparable between machines.
std::vector<std::filesystem::path> builtin_corpus(Split split);

// Tokens of a corpus as one endless stream: documents in an order shuffled anew each epoch from
// `seed`, tokenized when needed, each followed by `separator`. position() and seek() give exact
// resume.
class TokenFeed {
 public:
  struct Position {
    int64_t epoch = 0, document = 0, offset = 0;  // offset in tokens within the document
  };
  TokenFeed(const Corpus& corpus, const Tokenizer& tokenizer, int32_t separator, uint64_t seed);
  void read(std::span<int32_t> out);
  Position position() const { return position_; }
  void seek(const Position& position);  // Error(kData) for a document the corpus does not have

 private:
  void load_document();
  const Corpus& corpus_;
  const Tokenizer& tokenizer_;
  int32_t separator_;
  uint64_t seed_;
  Position position_;
  std::vector<uint32_t> order_;
  std::vector<int32_t> tokens_;
};

// The first `windows` non-overlapping windows of `length` tokens of a corpus in its fixed order,
// documents joined by `separator`; fewer if the corpus is shorter, Error(kData) if not even one
// fits. `bytes` is the number of text bytes that each window's tokens 1..length-1 (the predicted
// ones) stand for.
struct EvalWindows {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<int64_t> bytes;
};
EvalWindows eval_windows(const Corpus& corpus, const Tokenizer& tokenizer, int32_t separator,
                         int64_t length, int64_t windows);

}  // namespace dmc::text
