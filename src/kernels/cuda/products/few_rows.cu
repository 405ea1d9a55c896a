#include "kernels/cuda/products/few_rows.h"

#include "kernels/cuda/lanes/warp.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/model_launches.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kWarps = 4;  // of a block; each has kOutputsAtOnce outputs

template <DType kType, int kRows>
__global__ void __launch_bounds__(kWarps* kLanes)
    few_rows_kernel(const __grid_constant__ FewRows args) {
  const int64_t team = int64_t{blockIdx.x} * kWarps + threadIdx.x / kLanes;
  if (team * kOutputsAtOnce >= args.outputs) return;
  multiply_few_rows<WarpTeam, kType, kRows>(args, team * kOutputsAtOnce);
}

template <DType kType>
void multiply(const FewRows& args, Stream stream) {
  constexpr int64_t kOutputs = kWarps * kOutputsAtOnce;  // of a block
  const auto blocks = static_cast<unsigned>((args.outputs + kOutputs - 1) / kOutputs);
  with_few_rows(args.rows, [&]<int kRows>() {
    launch("launching a product with few rows", few_rows_kernel<kType, kRows>,
           {blocks, kWarps * kLanes}, stream, args);
  });
}

}  // namespace

void multiply_few_rows(DType type, const FewRows& args, Stream stream) {
  DMC_CHECK(args.rows > 0 && args.rows <= kMostFewRows);
  DMC_CHECK(takes_few_rows(type, args.inputs, args.rows));
  if (type == DType::kF32) return multiply<DType::kF32>(args, stream);
  if (type == DType::kI8) return multiply<DType::kI8>(args, stream);
  if (type == DType::kF16) return multiply<DType::kF16>(args, stream);
  DMC_CHECK(type == DType::kBF16);
  multiply<DType::kBF16>(args, stream);
}

}  // namespace dmc::kernels::cuda
