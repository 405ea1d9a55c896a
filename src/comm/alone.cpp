#include <cstring>

#include "comm/group.h"

namespace dmc::comm {
namespace {

class Alone final : public Group {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(void*, int64_t, DType, Stream) override {}
  void all_gather(const void* from, int64_t count, DType type, void* to, Stream) override {
    std::memcpy(to, from, static_cast<size_t>(count) * dtype_size(type));
  }
  void reduce_scatter(const void* from, int64_t count, DType type, void* to,
                      Stream stream) override {
    all_gather(from, count, type, to, stream);
  }
  void broadcast(void*, int64_t, DType, int, Stream) override {}
  void barrier(Stream) override {}
  void abort() override {}
  void recover() override {}
};

}  // namespace

Group& alone() {
  static Alone group;
  return group;
}

}  // namespace dmc::comm
