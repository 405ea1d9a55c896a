// Timing on the device and one line of JSON for each result. Only for .cu files.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/launch.h"

namespace dmc::bench {

struct Times {
  double median_us, p10_us, p90_us;
};

// Captures what `work(stream)` launches in a CUDA graph and times its replays with events.
template <class Work>
Times time_graph(Work&& work, int warm_ups = 3, int replays = 50) {
  using kernels::cuda::check;
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaEvent_t begin, end;
  check(cudaStreamCreate(&stream), "making a stream");
  check(cudaEventCreate(&begin), "making an event");
  check(cudaEventCreate(&end), "making an event");
  work(stream);  // lazy loading of kernels must not fall into the capture
  check(cudaStreamSynchronize(stream), "running once");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capturing");
  work(stream);
  check(cudaStreamEndCapture(stream, &graph), "capturing");
  check(cudaGraphInstantiate(&exec, graph, 0), "making the graph");
  std::vector<double> times;
  for (int i = 0; i < warm_ups + replays; ++i) {
    float ms = 0.0f;
    check(cudaEventRecord(begin, stream), "timing");
    check(cudaGraphLaunch(exec, stream), "replaying");
    check(cudaEventRecord(end, stream), "timing");
    check(cudaEventSynchronize(end), "replaying");
    check(cudaEventElapsedTime(&ms, begin, end), "timing");
    if (i >= warm_ups) times.push_back(1e3 * static_cast<double>(ms));
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))];
  };
  return {at(0.5), at(0.1), at(0.9)};
}

// Prints {"name": ..., key: value, ...} at once, so that a run that is cut off has left its
// results.
inline void report(const std::string& name,
                   const std::vector<std::pair<const char*, double>>& values) {
  std::printf("{\"name\": \"%s\"", name.c_str());
  for (const auto& [key, value] : values) std::printf(", \"%s\": %.6g", key, value);
  std::printf("}\n");
  std::fflush(stdout);
}

}  // namespace dmc::bench
