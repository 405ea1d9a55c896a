// GGUF containers (the files of llama.cpp): typed metadata and a directory of tensors, versions 2
// and 3, little end first. The file is mapped; everything that it says of itself is checked against
// its size before anything is allocated for it, so every span handed out lies inside of the file.
// What keys and tensors mean is said in model/gguf and text/tokenizer/gguf_vocabulary.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace dmc {

// How the numbers of a tensor are stored: blocks of `block` numbers of a row in `bytes` bytes.
struct GgufType {
  uint32_t id;
  std::string_view name;  // "Q4_1"
  int64_t block;
  int64_t bytes;  // 0: a type that this program does not read
};

struct GgufTensor {
  const GgufType* type;
  std::vector<int64_t> shape;  // the innermost extent last, as elsewhere in this program
  std::span<const std::byte> bytes;
};

// A value of the metadata as it lies in the file.
struct GgufValue {
  uint32_t type = 0;  // of the value, or of an array's elements
  bool array = false;
  uint64_t count = 1;  // elements; 1 where it is no array
  std::span<const std::byte> bytes;
};

// Whether `path` is a file that begins as GGUF files do; its name does not matter.
bool is_gguf(const std::filesystem::path& path);

class GgufFile {
 public:
  // Error(kData) naming the file, and key or tensor, for what the format forbids or this program
  // does not read: another version, big-endian numbers, nested arrays, repeated names, a file
  // that is one of several parts, a type of tensor that is not known, sizes and places that
  // overflow, overlap or run past the end.
  explicit GgufFile(const std::filesystem::path& path);

  const std::string& origin() const { return origin_; }  // for messages
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  // The value of a key; Error(kData) naming it if it is missing, of another type or out of range.
  bool has(std::string_view key) const { return values_.contains(key); }
  int64_t size(std::string_view key, int64_t least, int64_t most) const;
  double number(std::string_view key) const;  // of any numeric type
  bool boolean(std::string_view key) const;
  std::string text(std::string_view key) const;  // valid UTF-8
  // Arrays; the views refer into the file.
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  bool is_array(std::string_view key) const;
  void require_whole() const { file_->require_whole(); }  // as MappedFile

  Error wrong(std::string_view key, const std::string& expected) const;

 private:
  const GgufValue& at(std::string_view key) const;

  std::string origin_;
  std::shared_ptr<MappedFile> file_;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace dmc
