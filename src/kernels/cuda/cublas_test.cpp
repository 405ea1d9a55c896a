// Without cuBLAS, which machines that run this test mostly lack.
#include "kernels/cuda/cublas.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace dmc::kernels::cuda {
namespace {

TEST(CudaCublas, AMissingLibraryIsOneSentence) {
  if (dlopen("libcublas.so.13", RTLD_NOW) != nullptr) GTEST_SKIP() << "this machine has cuBLAS";
  try {
    Cublas(nullptr, nullptr, 0);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    EXPECT_NE(std::string(error.what()).find("libcublas.so.13"), std::string::npos);
  }
}

}  // namespace
}  // namespace dmc::kernels::cuda
