// Memory, streams and graphs of the emulated device.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "cuda_runtime.h"

using Work = std::function<void()>;

struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};
struct CUevent_st {
  std::optional<std::chrono::steady_clock::time_point> passed;
  CUstream_st* stream = nullptr;  // null: not recorded yet
};
struct CUstream_st {
  std::deque<Work> waiting;
  std::unique_ptr<CUgraph_st> captured;  // null: nothing is captured
};

namespace {

constexpr size_t kMemory = size_t{1224} << 20;
constexpr size_t kUsualShared = 48 * 1024, kMostShared = 227 * 1024, kMostParameters = 4096;
constexpr unsigned kMostThreads = 1024, kMostBlocksYZ = 65535;
constexpr int kMultiprocessors = 5;

struct Mapping {
  void* start;
  size_t bytes, used;
};

struct State {
  CUstream_st usual;  // the stream null
  std::set<CUstream_st*> streams = {&usual};
  std::map<void*, Mapping> device, pinned;
  std::map<const void*, size_t> shared_allowed;
  size_t used = 0;
};

State& state() {
  static State* const all = new State;  // outlives everything static that uses it
  return *all;
}

CUstream_st& of(cudaStream_t stream) { return stream == nullptr ? state().usual : *stream; }

void run(CUstream_st& stream) {
  while (!stream.waiting.empty()) {
    const Work next = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    next();
  }
}

void run_all() {
  for (CUstream_st* stream : state().streams) run(*stream);
}

bool capturing() {
  for (const CUstream_st* stream : state().streams) {
    if (stream->captured != nullptr) return true;
  }
  return false;
}

cudaError_t enqueue(CUstream_st& stream, Work work) {
  if (stream.captured != nullptr) {
    stream.captured->work.push_back(std::move(work));
  } else {
    stream.waiting.push_back(std::move(work));
  }
  return cudaSuccess;
}

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// The memory ends where the mapping does, to 16 bytes; the page behind it cannot be touched.
void* map_memory(size_t bytes, std::map<void*, Mapping>& into) {
  const size_t page = page_bytes(), rounded = (bytes + 15) / 16 * 16;
  const size_t usable = (rounded + page - 1) / page * page;
  void* const start =
      mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return nullptr;
  mprotect(static_cast<std::byte*>(start) + usable, page, PROT_NONE);
  void* const memory = static_cast<std::byte*>(start) + (usable - rounded);
  std::memset(memory, 0xff, rounded);
  into[memory] = {start, usable + page, bytes};
  return memory;
}

void unmap(void* memory, std::map<void*, Mapping>& from) {
  const Mapping mapping = from.at(memory);
  munmap(mapping.start, mapping.bytes);
  from.erase(memory);
}

bool is_pinned(const void* memory) {
  auto after = state().pinned.upper_bound(const_cast<void*>(memory));
  if (after == state().pinned.begin()) return false;
  const auto& [start, mapping] = *std::prev(after);
  return memory < static_cast<const std::byte*>(start) + mapping.used;
}

}  // namespace

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    default:
      return "invalid argument";
  }
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = kMultiprocessors;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* left, size_t* all) {
  *left = kMemory - state().used;
  *all = kMemory;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (capturing()) return cudaErrorInvalidValue;
  if (bytes > kMemory - state().used) return cudaErrorMemoryAllocation;
  *memory = map_memory(bytes, state().device);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  state().used += bytes;
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  if (capturing()) return cudaErrorInvalidValue;
  run_all();
  state().used -= state().device.at(memory).used;
  unmap(memory, state().device);
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  *memory = map_memory(bytes, state().pinned);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  run_all();
  unmap(memory, state().pinned);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (capturing()) return cudaErrorInvalidValue;
  run(state().usual);
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}
// Ordinary memory of the host is read before the call returns, and written before it returns.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from)) {
    const auto* const begin = static_cast<const std::byte*>(from);
    std::vector<std::byte> copy(begin, begin + bytes);
    return enqueue(of(stream), [to, copy] { std::memcpy(to, copy.data(), copy.size()); });
  }
  if (kind == cudaMemcpyDeviceToHost && !is_pinned(to)) {
    if (capturing()) return cudaErrorInvalidValue;
    run(of(stream));
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  }
  return enqueue(of(stream), [=] { std::memcpy(to, from, bytes); });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return enqueue(of(stream), [=] { std::memset(to, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  state().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  run(*stream);
  state().streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (capturing()) return cudaErrorInvalidValue;
  run(of(stream));
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  if (capturing()) return cudaErrorInvalidValue;
  run_all();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr || stream->captured != nullptr) return cudaErrorInvalidValue;
  stream->captured = std::make_unique<CUgraph_st>();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  if (stream->captured == nullptr) return cudaErrorInvalidValue;
  *graph = stream->captured.release();
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, uint64_t) {
  *executable = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  for (const Work& work : executable->work) enqueue(of(stream), work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = &of(stream);
  event->passed.reset();
  return enqueue(of(stream), [event] { event->passed = std::chrono::steady_clock::now(); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (capturing() || event->stream == nullptr) return cudaErrorInvalidValue;
  run(*event->stream);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  if (!begin->passed || !end->passed) return cudaErrorInvalidValue;
  *ms = std::chrono::duration<float, std::milli>(*end->passed - *begin->passed).count();
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

// For a library of products (tests/fakes/fake_cublas.cpp), which must wait like everything else.
extern "C" void emulated_enqueue(cudaStream_t stream, const Work& work) {
  enqueue(of(stream), work);
}

namespace emulated {

void allow_shared_memory(const void* kernel, size_t bytes) {
  state().shared_allowed[kernel] = bytes;
}

cudaError_t enqueue_kernel(const void* kernel, const cudaLaunchConfig_t& config,
                           size_t parameter_bytes, std::function<void()> thread) {
  const dim3 blocks = config.gridDim, threads = config.blockDim;
  const auto allowed = state().shared_allowed.find(kernel);
  const size_t shared = allowed == state().shared_allowed.end() ? kUsualShared : allowed->second;
  if (blocks.x == 0 || blocks.y == 0 || blocks.z == 0 || blocks.x > 0x7fffffffu ||
      blocks.y > kMostBlocksYZ || blocks.z > kMostBlocksYZ || threads.x == 0 ||
      threads.x > kMostThreads || config.dynamicSmemBytes > std::min(shared, kMostShared) ||
      parameter_bytes > kMostParameters) {
    return cudaErrorInvalidValue;
  }
  return enqueue(of(config.stream), [=, thread = std::move(thread)] {
    run_kernel(
        {{blocks.x, blocks.y, blocks.z}, static_cast<int>(threads.x), config.dynamicSmemBytes},
        thread);
  });
}

}  // namespace emulated
