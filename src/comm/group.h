// What the ranks that compute one model together tell one another: the collectives of NCCL and MPI,
// over plain pointers. No LibTorch: training's ranks (dist/) exchange tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"

namespace dmc::comm {

// Where a device's work is queued: a call's numbers are ready in that order. Null on the CPU, where
// a call returns when its result is there.
using Stream = void*;

// Another rank has failed, so this one cannot go on.
class RankLost : public Error {
 public:
  explicit RankLost(const std::string& sentence) : Error(ErrorCode::kCancelled, sentence) {}
};

// One of size() ranks. All of them call the same collectives in the same order, with the same
// count, type and root; `count` is in numbers of `type`. Sums are for kF32, kF16 and kBF16, are
// computed in f32 in the order of ranks, whoever comes first, and are the same bits on each rank;
// the others take every type that has bytes. Buffers of one call do not overlap.
// Throws RankLost if a rank has called abort(), and Error(kInternal) on all ranks if what they
// asked for is not the same.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;  // 0 to size() - 1
  virtual int size() const = 0;

  // data[count] becomes the sum over all ranks.
  virtual void all_reduce(void* data, int64_t count, DType type, Stream stream) = 0;
  // to[size][count]: each rank's from[count].
  virtual void all_gather(const void* from, int64_t count, DType type, void* to, Stream stream) = 0;
  // to[count]: this rank's row of the sum of all ranks' from[size][count].
  virtual void reduce_scatter(const void* from, int64_t count, DType type, void* to,
                              Stream stream) = 0;
  // data[count] becomes that of rank `root`.
  virtual void broadcast(void* data, int64_t count, DType type, int root, Stream stream) = 0;
  // Returns when all ranks have called it.
  virtual void barrier(Stream stream) = 0;

  // This rank does not go on: the others' calls, waiting ones and later ones, throw RankLost. From
  // any thread.
  virtual void abort() = 0;
  // Makes the group whole again after abort(); while no rank is in a call.
  virtual void recover() = 0;
};

// A model on one rank.
Group& alone();

// Ranks that are threads of this process and compute on the CPU.
std::vector<std::unique_ptr<Group>> thread_groups(int size);

}  // namespace dmc::comm
