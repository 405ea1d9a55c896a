#include "kernels/cuda/sampling/sample.h"

#include "kernels/cuda/lanes/block_team.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/model_launches.h"

namespace dmc::kernels::cuda {
namespace {

constexpr int kThreads = 1024;  // a block looks through a vocabulary

__global__ void __launch_bounds__(kThreads)
    choose_kernel(const float* logits, int32_t vocab, const __grid_constant__ StepRows step) {
  __shared__ SearchBins bins;
  choose_token<BlockTeam<kThreads>>(logits, vocab, step, static_cast<int>(blockIdx.x), bins);
}

}  // namespace

void choose_tokens(const float* logits, int batch, int32_t vocab, const StepRows& step,
                   Stream stream) {
  DMC_CHECK(vocab <= kMostSampledTokens);
  launch("launching the choice of tokens", choose_kernel, {static_cast<unsigned>(batch), kThreads},
         stream, logits, vocab, step);
}

}  // namespace dmc::kernels::cuda
