// Matrix products by NVIDIA's cuBLAS, which is looked for when the program runs: its library comes
// with the CUDA toolkit and with PyTorch for CUDA, weighs hundreds of megabytes, and nobody needs
// it to build.
#pragma once

#include <memory>

#include "kernels/cuda/attention/decode.h"

namespace dmc::kernels::cuda {

// y [rows][outputs] f32 = x [rows][inputs] W^T, or with `add` added to what y holds. W [outputs]
// [inputs] and x are kF32, kBF16 or kF16, both the same; sums are f32 (no TF32).
struct Product {
  DType type;
  const void *weights, *x;
  float* y;
  int64_t outputs, inputs, rows;
  int64_t y_stride;  // numbers from a row of y to the next
  bool add;
};

class Cublas {
 public:
  // Products run on `stream`. `workspace` of the device, so that they can be recorded in a graph.
  // Error(kInvalidArgument) if the library is not found; Error(kInternal) if it fails.
  Cublas(Stream stream, void* workspace, int64_t workspace_bytes);
  ~Cublas();

  void multiply(const Product& product);

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  void* handle_ = nullptr;
};

}  // namespace dmc::kernels::cuda
