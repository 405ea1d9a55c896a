// Text for training and evaluation: files on disk, split by a hash of their content, so the split
// is the same on every machine that has the same files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace dmc::text {

enum class Split { kAll, kTrain, kHeldOut };

// The texts of `sources` that belong to `split`. A source is a file or a folder, which is searched
// for .txt, .md, .py and .jsonl (each also packed: .gz, .bz2, .zst) in UTF-8. Each line of a .jsonl
// file is a JSON object whose "text" is a document; any other file is one. Documents of more than
// 8 MiB are read in pieces.
//
// A document is held out iff fnv1a64(content) % 50 == 0. Where there are fewer than 100 of them
// they are too few for that: then the end of each is held out, 2 %, or up to 10 % of a text so
// short that this is less than 128 KiB. The order is that of the hashes, so it does not depend on
// paths, and to train on and to hold out documents of equal content count once.
//
// Error(kData) naming the source that is not there, the file that was named but is no such text, or
// all sources if there is nothing to read.
class Corpus {
 public:
  Corpus(const std::vector<std::filesystem::path>& sources, Split split);
  size_t size() const { return documents_.size(); }
  std::string text(size_t index) const;
  uint64_t bytes() const { return bytes_; }       // of all documents
  int64_t files() const { return files_used_; }   // that they are in
  int64_t left_out() const { return left_out_; }  // files of folders that are no text in UTF-8

 private:
  struct File {
    std::filesystem::path path;
    std::optional<std::string> text;  // of packed files and of records; else it is read when needed
  };
  struct Document {
    uint64_t hash;
    size_t file;              // index into files_
    uint64_t offset, length;  // in the file's text
  };
  void add_file(const std::filesystem::path& path, bool named);
  void add_records(const std::filesystem::path& path, const std::string& lines, bool named);
  void add_documents(size_t file, uint64_t offset, std::string_view text);
  void keep(Split split);
  void keep_ends(bool held_out);

  std::vector<File> files_;
  std::vector<Document> documents_;
  uint64_t bytes_ = 0;
  int64_t files_used_ = 0, left_out_ = 0;
};

// The built-in corpus: the Python sources of the torch wheel this program was built with, and (for
// training only) those of the Python standard library. The held-out part is of the pinned wheel
// alone, so its figures are comparable between machines.
std::vector<std::filesystem::path> builtin_corpus(Split split);

// About how many tokens a corpus has, from its first documents (exact for a small one), a separator
// behind each.
double estimated_tokens(const Corpus& corpus, const Tokenizer& tokenizer);

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

// Non-overlapping windows of `length` tokens of a corpus in its order, documents joined by
// `separator`. All of them if `windows` is 0, the last one as short as it happens to be (but of two
// tokens: one predicts nothing); else the first so many. Error(kData) if there is none.
struct EvalWindows {
  std::vector<std::vector<int32_t>> tokens;
  // Bytes of text that each window's tokens 1..length-1 (the predicted ones) stand for. A separator
  // stands for none, nor does the unknown token, whose text is lost.
  std::vector<int64_t> bytes;
  bool whole = false;  // nothing of the corpus is missing
  int64_t files = 0;   // of the corpus

  int64_t total_tokens() const;
};
// `progress` is called with the bytes of text that are cut into tokens.
EvalWindows eval_windows(const Corpus& corpus, const Tokenizer& tokenizer, int32_t separator,
                         int64_t length, int64_t windows,
                         const std::function<void(int64_t)>& progress = {});

}  // namespace dmc::text
