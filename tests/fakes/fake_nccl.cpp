// For nccl_group_test.cpp: a libnccl.so.2 whose ranks are threads and whose device is the CPU, by
// what NVIDIA's manual says of the functions.
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace {

constexpr int kOk = 0, kInvalidArgument = 4, kRemoteError = 6;
constexpr int kInt64 = 4, kFloat32 = 7, kFloat64 = 8;

struct Part {
  const void* from;
  void* to;
};

// The ranks of one communicator.
struct Meeting {
  explicit Meeting(int ranks) : parts(static_cast<size_t>(ranks)) {}
  std::mutex mutex;
  std::condition_variable all_here;
  std::vector<Part> parts;
  size_t here = 0;
  int64_t meetings = 0;
  bool left = false;     // by a rank, so that nothing comes to its end anymore
  bool aborted = false;  // by a rank that noticed
};

struct Comm {
  std::shared_ptr<Meeting> meeting;
  int rank;
};

struct Id {
  char bytes[128];
};

std::mutex g_mutex;
std::map<std::string, std::shared_ptr<Meeting>> g_meetings;
int g_ids = 0;

// `work` runs once, on the thread that comes last.
template <class Work>
int meet(void* handle, const void* from, void* to, const Work& work) {
  const Comm& comm = *static_cast<Comm*>(handle);
  Meeting& meeting = *comm.meeting;
  std::unique_lock lock(meeting.mutex);
  meeting.parts[static_cast<size_t>(comm.rank)] = {from, to};
  if (++meeting.here == meeting.parts.size()) {
    work(meeting.parts);
    meeting.here = 0;
    ++meeting.meetings;
    meeting.all_here.notify_all();
    return kOk;
  }
  const int64_t this_one = meeting.meetings;
  meeting.all_here.wait(lock, [&] { return meeting.meetings != this_one || meeting.left; });
  return meeting.meetings != this_one ? kOk : kRemoteError;
}

template <class T>
void sum_of(const std::vector<Part>& parts, size_t count, int root) {
  std::vector<T> total(count, T{});
  for (const Part& part : parts) {
    for (size_t i = 0; i < count; ++i) total[i] += static_cast<const T*>(part.from)[i];
  }
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    if (root >= 0 && rank != static_cast<size_t>(root)) continue;
    std::memcpy(parts[rank].to, total.data(), count * sizeof(T));
  }
}

int sum(void* comm, const void* from, void* to, size_t count, int type, int operation, int root) {
  if (operation != 0) return kInvalidArgument;
  void (*summing)(const std::vector<Part>&, size_t, int) = nullptr;
  if (type == kInt64) summing = sum_of<int64_t>;
  if (type == kFloat32) summing = sum_of<float>;
  if (type == kFloat64) summing = sum_of<double>;
  if (summing == nullptr) return kInvalidArgument;
  return meet(comm, from, to, [&](const auto& parts) { summing(parts, count, root); });
}

void leave(Comm* comm, bool aborts) {
  {
    const std::lock_guard lock(comm->meeting->mutex);
    comm->meeting->left = true;
    comm->meeting->aborted = comm->meeting->aborted || aborts;
  }
  comm->meeting->all_here.notify_all();
  delete comm;
}

}  // namespace

extern "C" {

int ncclGetUniqueId(Id* id) {
  const std::lock_guard lock(g_mutex);
  *id = {};
  std::strcpy(id->bytes, std::to_string(++g_ids).c_str());
  return kOk;
}

int ncclCommInitRank(void** comm, int size, Id id, int rank) {
  const std::lock_guard lock(g_mutex);
  std::shared_ptr<Meeting>& meeting = g_meetings[id.bytes];
  if (!meeting) meeting = std::make_shared<Meeting>(size);
  *comm = new Comm{meeting, rank};
  return kOk;
}

int ncclCommAbort(void* handle) {
  leave(static_cast<Comm*>(handle), /*aborts=*/true);
  return kOk;
}

int ncclCommDestroy(void* handle) {
  leave(static_cast<Comm*>(handle), /*aborts=*/false);
  return kOk;
}

int ncclCommGetAsyncError(void* handle, int* error) {
  Meeting& meeting = *static_cast<Comm*>(handle)->meeting;
  const std::lock_guard lock(meeting.mutex);
  *error = meeting.aborted ? kRemoteError : kOk;
  return kOk;
}

const char* ncclGetErrorString(int result) {
  return result == kRemoteError ? "remote process exited or there was a network error"
                                : "invalid argument";
}

int ncclAllReduce(const void* from, void* to, size_t count, int type, int operation, void* comm,
                  void*) {
  return sum(comm, from, to, count, type, operation, /*root=*/-1);
}

int ncclReduce(const void* from, void* to, size_t count, int type, int operation, int root,
               void* comm, void*) {
  return sum(comm, from, to, count, type, operation, root);
}

int ncclBroadcast(const void* from, void* to, size_t count, int type, int root, void* comm, void*) {
  const size_t bytes = count * (type == kFloat32 ? 4 : 8);
  return meet(comm, from, to, [&](const std::vector<Part>& parts) {
    const void* const source = parts[static_cast<size_t>(root)].from;
    for (const Part& part : parts) {
      if (part.to != source) std::memcpy(part.to, source, bytes);
    }
  });
}

}  // extern "C"
