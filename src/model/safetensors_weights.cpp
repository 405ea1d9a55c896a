#include "model/safetensors_weights.h"

#include <array>
#include <cstring>

#include "base/error.h"
#include "model/model_files.h"

namespace dmc::model {
namespace {

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

Error wrong_dtype(const std::string& origin, const std::string& name, DType found,
                  const char* expected) {
  return data_error(origin + ": tensor " + name + " has dtype " + std::string(dtype_name(found)) +
                    ", expected " + expected);
}

// One extent is one row.
int64_t lines_of(const TensorView& view) { return view.shape.size() > 1 ? view.shape[0] : 1; }

class StoredMatrix : public MatrixSource {
 public:
  explicit StoredMatrix(const TensorView& view)
      : MatrixSource(lines_of(view), view.numel() / lines_of(view), /*turned=*/false),
        view_(view) {}

  std::string type_name() const override { return std::string(dtype_name(view_.dtype)); }
  int64_t bytes() const override { return static_cast<int64_t>(view_.bytes.size()); }
  DType dtype() const override { return view_.dtype; }

 protected:
  const std::byte* address(int64_t line, int64_t index) const {
    return view_.bytes.data() +
           (line * width_ + index) * static_cast<int64_t>(dtype_size(view_.dtype));
  }

 private:
  const TensorView& view_;
};

class FloatMatrix : public StoredMatrix {
 public:
  using StoredMatrix::StoredMatrix;
  WeightFormat format() const override {
    return {.bits = static_cast<int>(8 * dtype_size(dtype()))};
  }
  const std::byte* floats(int64_t line) const override { return address(line, 0); }

 protected:
  void widen(int64_t line, int64_t first, int64_t count, float* to) const override {
    widen_floats(address(line, first), count, dtype(), to);
  }
};

class Int8Matrix : public StoredMatrix {
 public:
  Int8Matrix(const TensorView& view, const TensorView& scales)
      : StoredMatrix(view),
        scales_(static_cast<size_t>(lines_)),
        scale_bytes_(scales.bytes.size()) {
    widen_floats(scales.bytes.data(), lines_, scales.dtype, scales_.data());
  }
  WeightFormat format() const override { return {.bits = 8, .group = width_}; }
  int64_t bytes() const override {
    return StoredMatrix::bytes() + static_cast<int64_t>(scale_bytes_);
  }
  void read_numbers(int64_t line, int8_t* numbers, float* scales, float*) const override {
    std::memcpy(numbers, address(line, 0), static_cast<size_t>(width_));
    *scales = scales_[static_cast<size_t>(line)];
  }

 protected:
  void widen(int64_t line, int64_t first, int64_t count, float* to) const override {
    const auto* const numbers = reinterpret_cast<const int8_t*>(address(line, first));
    const float scale = scales_[static_cast<size_t>(line)];
    for (int64_t i = 0; i < count; ++i) to[i] = scale * static_cast<float>(numbers[i]);
  }

 private:
  std::vector<float> scales_;  // of each line
  size_t scale_bytes_;
};

}  // namespace

std::unique_ptr<const MatrixSource> open_matrix(const TensorMap& tensors, const std::string& origin,
                                                const std::string& name,
                                                const std::vector<int64_t>& shape) {
  const TensorView& view = require_tensor(tensors, origin, name, shape);
  if (is_float(view.dtype)) return std::make_unique<FloatMatrix>(view);
  if (view.dtype != DType::kI8) {
    throw wrong_dtype(origin, name, view.dtype, "F32, F16, BF16 or I8");
  }
  const std::string scale = scale_name(name);
  const TensorView& scales =
      require_tensor(tensors, origin, scale, std::array<int64_t, 2>{shape[0], 1});
  if (!is_float(scales.dtype)) {
    throw wrong_dtype(origin, scale, scales.dtype, "F32, F16 or BF16");
  }
  return std::make_unique<Int8Matrix>(view, scales);
}

}  // namespace dmc::model
