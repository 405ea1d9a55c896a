// That the emulated GPU shows what a GPU would do wrong, and that right kernels are right on it.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/lanes/block_team.cuh"

namespace dmc::kernels::cuda {
namespace {

constexpr int kThreads = 96, kRuns = 50;  // each run has an order of its own

__global__ void reverse_kernel(const int32_t* from, int32_t* to, bool with_barrier) {
  __shared__ int32_t numbers[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  numbers[i] = from[i];
  if (with_barrier) __syncthreads();
  to[i] = numbers[kThreads - 1 - i];
  if (with_barrier) __syncthreads();
}

// How many of `kRuns` runs give what they should.
int right_runs(bool with_barrier) {
  int right = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<int32_t> numbers;
    for (int i = 0; i < kThreads; ++i) numbers.push_back(1000 * run + i);
    const DeviceArray<int32_t> from(numbers);
    DeviceArray<int32_t> to(kThreads);
    launch("reversing", reverse_kernel, {1, kThreads}, nullptr, from.get(), to.get(), with_barrier);
    check(cudaDeviceSynchronize(), "reversing");
    right += to.download() == std::vector<int32_t>(numbers.rbegin(), numbers.rend()) ? 1 : 0;
  }
  return right;
}

TEST(Emulator, ShowsThatABarrierIsMissing) {
  EXPECT_EQ(right_runs(true), kRuns);
  EXPECT_LT(right_runs(false), kRuns / 2);
}

__global__ void copy_kernel(const int32_t* from, int32_t* to, bool wait) {
  auto& memory = shared_memory<int32_t[kThreads]>();
  const int i = static_cast<int>(threadIdx.x);
  DeviceWarp::copy(memory[i], from + i, true);
  DeviceWarp::commit_copies();
  if (wait) DeviceWarp::wait_copies<0>();
  to[i] = memory[i];
}

TEST(Emulator, ShowsThatACopyWasNotWaitedFor) {
  for (const bool wait : {true, false}) {
    const std::vector<int32_t> numbers(kThreads, 7);
    const DeviceArray<int32_t> from(numbers);
    DeviceArray<int32_t> to(kThreads);
    launch("copying", copy_kernel, {1, kThreads, sizeof(int32_t[kThreads])}, nullptr, from.get(),
           to.get(), wait);
    check(cudaDeviceSynchronize(), "copying");
    EXPECT_EQ(to.download() == numbers, wait);
  }
}

__global__ void sum_kernel(float* sums, bool all_lanes) {
  if (all_lanes || threadIdx.x != 5) sums[threadIdx.x] = WarpTeam::sum(1.0f);
}
__global__ void barrier_kernel(bool all_threads) {
  if (all_threads || threadIdx.x < 40) __syncthreads();
  if (!all_threads && threadIdx.x >= 40) __syncthreads();
}

TEST(Emulator, ThreadsThatWaitInVainAreAnError) {
  DeviceArray<float> sums(kLanes);
  launch("summing", sum_kernel, {1, kLanes}, nullptr, sums.get(), true);
  EXPECT_EQ(sums.download(), std::vector<float>(kLanes, 32.0f));
  launch("summing", sum_kernel, {1, kLanes}, nullptr, sums.get(), false);
  EXPECT_THROW(cudaDeviceSynchronize(), std::logic_error);

  launch("waiting", barrier_kernel, {1, kThreads}, nullptr, true);
  EXPECT_NO_THROW(cudaDeviceSynchronize());
  launch("waiting", barrier_kernel, {1, kThreads}, nullptr, false);
  EXPECT_THROW(cudaDeviceSynchronize(), std::logic_error) << "at two different barriers";
}

__global__ void count_kernel(int32_t* counter) { atomicAdd(counter, 1); }

TEST(Emulator, WorkWaitsUntilSomebodyWaitsForIt) {
  DeviceArray<int32_t> counter(std::vector<int32_t>{0});
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  launch("counting", count_kernel, {10, kThreads}, stream, counter.get());
  EXPECT_EQ(counter.download()[0], 0);
  check(cudaStreamSynchronize(stream), "counting");
  EXPECT_EQ(counter.download()[0], 10 * kThreads);

  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
  launch("counting", count_kernel, {1, 1}, stream, counter.get());
  EXPECT_NE(cudaStreamSynchronize(stream), cudaSuccess) << "a graph cannot hold that";
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  check(cudaStreamEndCapture(stream, &graph), "capturing");
  check(cudaGraphInstantiate(&executable, graph, 0), "making the graph");
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(executable, stream), "replaying");
  check(cudaStreamSynchronize(stream), "replaying");
  EXPECT_EQ(counter.download()[0], 10 * kThreads + 3);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST(Emulator, RefusesWhatNoDeviceWouldRun) {
  DeviceArray<int32_t> counter(1);
  const auto launches = [&](const Grid& grid) {
    try {
      launch("counting", count_kernel, grid, nullptr, counter.get());
      return true;
    } catch (const Error&) {
      return false;
    }
  };
  EXPECT_TRUE(launches({1, 1024}));
  EXPECT_FALSE(launches({1, 1025}));
  EXPECT_FALSE(launches({0, 32}));
  EXPECT_FALSE(launches({dim3(1, 65536), 32}));
  EXPECT_FALSE(launches({1, 32, 48 * 1024 + 1})) << "without cudaFuncSetAttribute";
  check(cudaDeviceSynchronize(), "counting");
}

TEST(EmulatorDeathTest, NothingLiesBehindTheEndOfAnArray) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  DeviceArray<int32_t> array(1000);
  EXPECT_EQ(array.get()[999], -1) << "what was never written is 0xff";
  EXPECT_DEATH(array.get()[1008] = 0, "");
}

}  // namespace
}  // namespace dmc::kernels::cuda
