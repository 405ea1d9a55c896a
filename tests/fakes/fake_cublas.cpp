// For cublas_test.cpp and the emulated GPU: a libcublas.so.13 that multiplies on the CPU, by what
// NVIDIA's manual says of column-major matrices. Where there is an emulated GPU, products wait in
// its streams like all other work.
#include <cstddef>
#include <functional>

#include "base/dtype.h"

namespace {

constexpr int kTransposed = 1, kRealF16 = 2, kRealBF16 = 14;

float at(const void* matrix, int type, std::ptrdiff_t index) {
  if (type == kRealBF16) return dmc::bf16_to_f32(static_cast<const uint16_t*>(matrix)[index]);
  if (type == kRealF16) return dmc::f16_to_f32(static_cast<const uint16_t*>(matrix)[index]);
  return static_cast<const float*>(matrix)[index];
}

// Where element (row, column) of op(matrix) is stored.
std::ptrdiff_t place(int operation, int row, int column, int leading) {
  return operation == kTransposed ? column + std::ptrdiff_t{row} * leading
                                  : row + std::ptrdiff_t{column} * leading;
}

struct Handle {
  void* stream = nullptr;
};

struct Product {
  int op_a, op_b, m, n, k;
  float alpha;
  const void* a;
  int type_a, lda;
  const void* b;
  int type_b, ldb;
  float beta;
  float* c;
  int ldc;
};

void multiply(const Product& p) {
  for (int i = 0; i < p.m; ++i) {
    for (int j = 0; j < p.n; ++j) {
      double sum = 0.0;
      for (int l = 0; l < p.k; ++l) {
        sum += static_cast<double>(at(p.a, p.type_a, place(p.op_a, i, l, p.lda))) *
               at(p.b, p.type_b, place(p.op_b, l, j, p.ldb));
      }
      float& to = p.c[i + std::ptrdiff_t{j} * p.ldc];
      to = static_cast<float>(p.alpha * sum) +
           (p.beta != 0.0f ? p.beta * to : 0.0f);  // with 0, what was there is not read
    }
  }
}

}  // namespace

extern "C" {

// tests/gpu/emulator/runtime.cpp
__attribute__((weak)) void emulated_enqueue(void* stream, const std::function<void()>& work);

int cublasCreate_v2(void** handle) {
  *handle = new Handle;
  return 0;
}
int cublasDestroy_v2(void* handle) {
  delete static_cast<Handle*>(handle);
  return 0;
}
int cublasSetStream_v2(void* handle, void* stream) {
  static_cast<Handle*>(handle)->stream = stream;
  return 0;
}
int cublasSetWorkspace_v2(void*, void*, std::size_t) { return 0; }

int cublasGemmEx(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha,
                 const void* a, int type_a, int lda, const void* b, int type_b, int ldb,
                 const void* beta, void* c, int type_c, int ldc, int, int) {
  if (type_c == kRealBF16 || type_a != type_b) return 15;  // not supported
  const Product product{
      op_a,   op_b, m, n,      k,   *static_cast<const float*>(alpha), a,
      type_a, lda,  b, type_b, ldb, *static_cast<const float*>(beta),  static_cast<float*>(c),
      ldc};
  if (emulated_enqueue == nullptr) {
    multiply(product);
  } else {
    emulated_enqueue(static_cast<Handle*>(handle)->stream, [product] { multiply(product); });
  }
  return 0;
}

}  // extern "C"
