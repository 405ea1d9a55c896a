#include "model/gguf/gguf_weights.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/join.h"
#include "base/quoted.h"
#include "model/gguf/gguf_blocks.h"

namespace dmc::model {
namespace {

// What the rows of a matrix are counted as, and where they lie.
struct Lines {
  int64_t count, width;
  bool turned;
  // Of how many heads each pair of rows that rotary embedding turns is stored side by side; 0:
  // none.
  int64_t heads;

  int64_t stored(int64_t line) const {
    if (heads == 0) return line;
    const int64_t size = count / heads, half = size / 2, in_head = line % size;
    return line - in_head + 2 * (in_head % half) + in_head / half;
  }
};

class GgufMatrix : public MatrixSource {
 public:
  GgufMatrix(const GgufTensor& tensor, const Lines& lines)
      : MatrixSource(lines.count, lines.width, lines.turned), tensor_(tensor), placed_(lines) {}

  std::string type_name() const override { return std::string(tensor_.type->name); }
  int64_t bytes() const override { return static_cast<int64_t>(tensor_.bytes.size()); }

 protected:
  const std::byte* address(int64_t line, int64_t block) const {
    const int64_t blocks = width_ / tensor_.type->block;
    return tensor_.bytes.data() + (placed_.stored(line) * blocks + block) * tensor_.type->bytes;
  }

  const GgufTensor& tensor_;

 private:
  const Lines placed_;
};

class GgufFloats : public GgufMatrix {
 public:
  using GgufMatrix::GgufMatrix;
  DType dtype() const override { return *dtype_from_name(tensor_.type->name); }
  WeightFormat format() const override {
    return {.bits = static_cast<int>(8 * dtype_size(dtype()))};
  }
  const std::byte* floats(int64_t line) const override { return address(line, 0); }

 protected:
  void widen(int64_t line, int64_t first, int64_t count, float* to) const override {
    widen_floats(address(line, first), count, dtype(), to);
  }
};

class GgufBlocks : public GgufMatrix {
 public:
  GgufBlocks(const GgufTensor& tensor, const Lines& lines, const BlockFormat& blocks)
      : GgufMatrix(tensor, lines), blocks_(blocks) {}

  DType dtype() const override { return DType::kBF16; }
  WeightFormat format() const override { return blocks_.format; }
  void read_numbers(int64_t line, int8_t* numbers, float* scales, float* minima) const override {
    const int64_t block = tensor_.type->block, groups = block / blocks_.format.group;
    for (int64_t b = 0; b < width_ / block; ++b) {
      float unused[kMostGroups];
      float* const of_block = blocks_.format.has_minimum ? minima + b * groups : unused;
      blocks_.unpack(address(line, b), numbers + b * block, scales + b * groups, of_block);
    }
  }

 protected:
  void widen(int64_t line, int64_t first, int64_t count, float* to) const override {
    const int64_t block = tensor_.type->block, end = first + count;
    float numbers[kLargestBlock];
    for (int64_t b = first / block; b * block < end; ++b) {
      const int64_t begin = b * block, from = std::max(first, begin),
                    until = std::min(end, begin + block);
      if (until - from == block) {
        widen_block(address(line, b), to + begin - first);
        continue;
      }
      widen_block(address(line, b), numbers);
      std::copy(numbers + from - begin, numbers + until - begin, to + from - first);
    }
  }

 private:
  void widen_block(const std::byte* from, float* to) const {
    int8_t numbers[kLargestBlock];
    float scales[kMostGroups], minima[kMostGroups] = {};
    blocks_.unpack(from, numbers, scales, minima);
    const int64_t group = blocks_.format.group;
    for (int64_t g = 0; g < tensor_.type->block / group; ++g) {
      for (int64_t i = g * group; i < (g + 1) * group; ++i) {
        to[i] = scales[g] * static_cast<float>(numbers[i]) + minima[g];
      }
    }
  }

  const BlockFormat& blocks_;
};

std::string shape_text(const std::vector<int64_t>& shape) {
  return "[" + join(shape, ", ", [](int64_t extent) { return std::to_string(extent); }) + "]";
}

// Tensors that say again what the metadata says (rope_freqs: gguf_config.cpp reads it).
bool may_be_left_out(std::string_view name) {
  return name == "rope_freqs.weight" || name.ends_with(".attn_rot_embd.weight");
}

}  // namespace

GgufWeights::GgufWeights(const std::filesystem::path& path, const DecoderLayout& layout)
    : file_(path), architecture_(gguf_architecture(file_)) {
  std::set<std::string, std::less<>> wanted;
  for (const auto& [name, shape] : layout.shapes) {
    if (const auto place = gguf_place(architecture_, name)) wanted.insert(place->name);
  }
  for (const auto& [name, tensor] : file_.tensors()) {
    if (wanted.contains(name) || may_be_left_out(name)) continue;
    throw data_error(file_.origin() + ": tensor " + in_quotes(name) + " has no place in a " +
                     std::string(architecture_.model_type) +
                     " model as it is known here; it would run wrongly");
  }
}

const GgufTensor* GgufWeights::tensor_of(const std::string& name) const {
  const auto place = gguf_place(architecture_, name);
  if (!place) return nullptr;
  const auto found = file_.tensors().find(place->name);
  return found == file_.tensors().end() ? nullptr : &found->second;
}

int64_t GgufWeights::interleaved_heads(const std::string& place) const {
  if (!architecture_.interleaved_pairs) return 0;
  const std::string heads = gguf_key(architecture_, "attention.head_count");
  const bool q = place.ends_with(".attn_q.weight"), k = place.ends_with(".attn_k.weight");
  if (!q && !k) return 0;
  const bool grouped = k && file_.has(heads + "_kv");
  return gguf_size(file_, architecture_,
                   grouped ? "attention.head_count_kv" : "attention.head_count");
}

std::unique_ptr<const MatrixSource> GgufWeights::open(const std::string& name,
                                                      const std::vector<int64_t>& shape) const {
  const std::optional<GgufPlace> place = gguf_place(architecture_, name);
  const GgufTensor* const tensor = tensor_of(name);
  if (tensor == nullptr) {
    throw data_error(file_.origin() + ": tensor " + (place ? place->name : name) +
                     " is missing from the weights");
  }
  std::vector<int64_t> expected = shape;
  if (place->turned) std::ranges::reverse(expected);
  if (tensor->shape != expected) {
    throw data_error(file_.origin() + ": tensor " + place->name + " has shape " +
                     shape_text(tensor->shape) + ", the metadata implies " + shape_text(expected));
  }
  Lines lines{expected.size() > 1 ? expected[0] : 1, expected.back(), place->turned,
              interleaved_heads(place->name)};
  if (lines.heads > 0 && lines.count % (2 * lines.heads) != 0) {
    throw data_error(file_.origin() + ": tensor " + place->name + " has " +
                     std::to_string(lines.count) + " rows, which are not pairs of " +
                     std::to_string(lines.heads) + " heads");
  }
  if (const BlockFormat* const blocks = block_format(*tensor->type)) {
    return std::make_unique<GgufBlocks>(*tensor, lines, *blocks);
  }
  return std::make_unique<GgufFloats>(*tensor, lines);
}

}  // namespace dmc::model
