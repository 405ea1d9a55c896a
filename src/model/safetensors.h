// safetensors files: a header of u64le size and JSON, then the tensors' bytes. Read through a
// read-only memory map after full validation; written to a temporary file that is renamed only when
// all of it is on disk, so a failed save never harms the file before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/file.h"

namespace dmc::model {

// A row-major tensor in memory somebody else owns.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t numel() const;
};
using TensorMap = std::map<std::string, TensorView, std::less<>>;

// The tensor of this name with this shape, else Error(kData) naming `origin` and what was found.
const TensorView& require_tensor(const TensorMap& tensors, const std::string& origin,
                                 const std::string& name, std::span<const int64_t> shape);

// One file. Throws Error(kData) naming the file for anything the format forbids: a header that is
// too large or not JSON, offsets that overlap, leave holes or run past the end, a shape that does
// not match its bytes, an unknown dtype.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  const TensorMap& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  void require_whole() const { file_->require_whole(); }

 private:
  std::shared_ptr<MappedFile> file_;
  TensorMap tensors_;
  std::map<std::string, std::string> metadata_;
};

// All tensors of a Hugging Face model directory: model.safetensors, or the shards that
// model.safetensors.index.json names (names with "..", "/" or an absolute path are refused).
class WeightsDirectory {
 public:
  explicit WeightsDirectory(const std::filesystem::path& dir);
  const TensorMap& tensors() const { return tensors_; }
  const TensorView& require(const std::string& name, std::span<const int64_t> shape) const;
  void require_whole() const;  // as MappedFile

 private:
  std::filesystem::path dir_;
  std::vector<SafetensorsFile> files_;
  TensorMap tensors_;
};

// Writes one file atomically, tensors in the map's order, data aligned to 64 bytes,
// `__metadata__` {"format": "pt"} plus `metadata`. Throws Error(kInternal) naming the path when
// the disk refuses (full, read-only); the file that was there before is then untouched.
void write_safetensors(const std::filesystem::path& path, const TensorMap& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace dmc::model
