// For cublas_test.cpp: a libcublas.so.13 that multiplies on the CPU, by what NVIDIA's manual says
// of column-major matrices. Handles are ignored.
#include <cstddef>

#include "base/dtype.h"

namespace {

constexpr int kTransposed = 1, kRealBF16 = 14;

float at(const void* matrix, int type, std::ptrdiff_t index) {
  if (type == kRealBF16) return dmc::bf16_to_f32(static_cast<const uint16_t*>(matrix)[index]);
  return static_cast<const float*>(matrix)[index];
}

// Where element (row, column) of op(matrix) is stored.
std::ptrdiff_t place(int operation, int row, int column, int leading) {
  return operation == kTransposed ? column + std::ptrdiff_t{row} * leading
                                  : row + std::ptrdiff_t{column} * leading;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  static int something;
  *handle = &something;
  return 0;
}
int cublasDestroy_v2(void*) { return 0; }
int cublasSetStream_v2(void*, void*) { return 0; }
int cublasSetWorkspace_v2(void*, void*, std::size_t) { return 0; }

int cublasGemmEx(void*, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
                 int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c,
                 int type_c, int ldc, int, int) {
  if (type_c == kRealBF16 || type_a != type_b) return 15;  // not supported
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0.0;
      for (int l = 0; l < k; ++l) {
        sum += static_cast<double>(at(a, type_a, place(op_a, i, l, lda))) *
               at(b, type_b, place(op_b, l, j, ldb));
      }
      float& to = static_cast<float*>(c)[i + std::ptrdiff_t{j} * ldc];
      const float add = *static_cast<const float*>(beta);
      to = static_cast<float>(*static_cast<const float*>(alpha) * sum) +
           (add != 0.0f ? add * to : 0.0f);  // with 0, what was there is not read
    }
  }
  return 0;
}

}  // extern "C"
