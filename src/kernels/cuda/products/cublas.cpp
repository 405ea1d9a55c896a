#include "kernels/cuda/products/cublas.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"
#include "base/loaded_library.h"
#include "kernels/cuda/products/cublas_abi.h"

namespace dmc::kernels::cuda {
namespace {

constexpr const char* kNames[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};

void check(int status, const char* doing) {
  if (status == 0) return;
  throw internal_error(std::string("cuBLAS: ") + doing + " failed with status " +
                       std::to_string(status));
}

void* open_library() {
  for (const char* name : kNames) {
    if (void* const library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  }
  throw unavailable(
      "device", std::string(kNames[0]) +
                    ", NVIDIA's matrix products, was not found; install the CUDA toolkit, or add "
                    "the folder it lies in to LD_LIBRARY_PATH");
}

int number_type(DType type) {
  switch (type) {
    case DType::kF32:
      return cublas_abi::kRealF32;
    case DType::kF16:
      return cublas_abi::kRealF16;
    default:
      DMC_CHECK(type == DType::kBF16);
      return cublas_abi::kRealBF16;
  }
}

}  // namespace

struct Cublas::Library {
  int (*create)(void**);
  int (*destroy)(void*);
  int (*set_stream)(void*, Stream);
  int (*set_workspace)(void*, void*, size_t);
  CublasGemmEx multiply;

  // The library stays loaded: CUDA does not survive its unloading.
  Library() {
    void* const opened = open_library();
    const auto find = [opened](const char* name, auto& function) {
      find_function(opened, "cuBLAS", name, function);
    };
    find("cublasCreate_v2", create);
    find("cublasDestroy_v2", destroy);
    find("cublasSetStream_v2", set_stream);
    find("cublasSetWorkspace_v2", set_workspace);
    find("cublasGemmEx", multiply);
  }
};

Cublas::Cublas(Stream stream, void* workspace, int64_t workspace_bytes)
    : library_(std::make_unique<Library>()) {
  check(library_->create(&handle_), "starting");
  check(library_->set_stream(handle_, stream), "choosing a stream");
  check(library_->set_workspace(handle_, workspace, static_cast<size_t>(workspace_bytes)),
        "choosing a workspace");
}

Cublas::~Cublas() {
  if (handle_ != nullptr) library_->destroy(handle_);
}

// cuBLAS counts columns first: what it takes for y^T [outputs, rows] is our y.
void Cublas::multiply(const Product& p) {
  const int type = number_type(p.type);
  const auto outputs = static_cast<int>(p.outputs), inputs = static_cast<int>(p.inputs);
  const float alpha = 1.0f, beta = p.add ? 1.0f : 0.0f;
  check(library_->multiply(handle_, cublas_abi::kTransposed, cublas_abi::kAsIs, outputs,
                           static_cast<int>(p.rows), inputs, &alpha, p.weights, type, inputs, p.x,
                           type, inputs, &beta, p.y, cublas_abi::kRealF32,
                           static_cast<int>(p.y_stride), cublas_abi::kComputeF32,
                           cublas_abi::kDefaultAlgorithm),
        "multiplying");
}

}  // namespace dmc::kernels::cuda
