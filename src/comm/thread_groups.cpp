#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <span>

#include "base/look_for.h"
#include "comm/group.h"

namespace dmc::comm {
namespace {

enum class Kind : uint8_t { kAllReduce, kAllGather, kReduceScatter, kBroadcast, kBarrier };

// What a rank brings to a collective.
struct Call {
  Kind kind;
  int64_t count = 0;
  DType type = DType::kF32;
  int root = 0;
  const std::byte* from = nullptr;
  std::byte* to = nullptr;

  bool same_as(const Call& other) const {
    return kind == other.kind && count == other.count && type == other.type && root == other.root;
  }
};

// Where threads meet, with what they brought.
class Meeting {
 public:
  explicit Meeting(int size) : calls_(static_cast<size_t>(size)) {}

  std::span<const Call> calls() const { return calls_; }

  // Returns when all ranks have brought theirs; they stay as they are until all have left.
  void enter(size_t rank, const Call& call) {
    calls_[rank] = call;
    wait_for_all(/*may_fail=*/true);
  }
  // Waits even if a rank has failed: the others still read what this one brought.
  void leave() { wait_for_all(/*may_fail=*/false); }

  void abort() {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    all_here_.notify_all();
  }
  void recover() {
    const std::lock_guard lock(mutex_);
    aborted_ = false;
    here_ = 0;
  }

 private:
  void wait_for_all(bool may_fail) {
    std::unique_lock lock(mutex_);
    const auto failed = [&] { return may_fail && aborted_; };
    if (failed()) throw RankLost("another rank of the model has failed");
    if (++here_ == calls_.size()) {
      here_ = 0;
      ++meetings_;
      all_here_.notify_all();
      return;
    }
    const int64_t mine = meetings_;
    lock.unlock();
    look_for([&] { return meetings_ != mine || failed(); });
    lock.lock();
    all_here_.wait(lock, [&] { return meetings_ != mine || failed(); });
    if (meetings_ == mine) throw RankLost("another rank of the model has failed");
  }

  std::mutex mutex_;
  std::condition_variable all_here_;
  std::vector<Call> calls_;
  size_t here_ = 0;
  std::atomic<int64_t> meetings_ = 0;  // these two change under the mutex only
  std::atomic<bool> aborted_ = false;
};

constexpr int64_t kAtOnce = 256;  // numbers that are summed together

bool has_sums(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

void narrow(const float* from, int64_t count, DType type, std::byte* to) {
  if (type == DType::kF32) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const auto rounded = type == DType::kF16 ? f32_to_f16 : f32_to_bf16;
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits = rounded(from[i]);
    std::memcpy(to + i * static_cast<int64_t>(sizeof(bits)), &bits, sizeof(bits));
  }
}

class ThreadGroup final : public Group {
 public:
  ThreadGroup(std::shared_ptr<Meeting> meeting, int rank, int size)
      : meeting_(std::move(meeting)), rank_(rank), size_(size) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  // Each rank sums a share of the numbers and gives it to all.
  void all_reduce(void* data, int64_t count, DType type, Stream) override {
    auto* const mine = static_cast<std::byte*>(data);
    DMC_CHECK(has_sums(type));
    meet({Kind::kAllReduce, count, type, 0, mine, mine}, [&] {
      const int64_t pieces = (count + kAtOnce - 1) / kAtOnce;
      const int64_t end = std::min(count, pieces * (rank_ + 1) / size_ * kAtOnce);
      sum_ranges(pieces * rank_ / size_ * kAtOnce, end, type,
                 [&](const float* sum, int64_t at, int64_t n) {
                   const int64_t offset = bytes(at, type);
                   for (const Call& call : meeting_->calls())
                     narrow(sum, n, type, call.to + offset);
                 });
    });
  }

  void all_gather(const void* from, int64_t count, DType type, void* to, Stream) override {
    auto* const place = static_cast<std::byte*>(to);
    meet({Kind::kAllGather, count, type, 0, static_cast<const std::byte*>(from), place}, [&] {
      const int64_t size = bytes(count, type);
      for (int rank = 0; rank < size_; ++rank) copy(of(rank).from, size, place + rank * size);
    });
  }

  void reduce_scatter(const void* from, int64_t count, DType type, void* to, Stream) override {
    auto* const place = static_cast<std::byte*>(to);
    DMC_CHECK(has_sums(type));
    meet({Kind::kReduceScatter, count, type, 0, static_cast<const std::byte*>(from), place}, [&] {
      const int64_t first = rank_ * count;
      sum_ranges(first, first + count, type, [&](const float* sum, int64_t at, int64_t n) {
        narrow(sum, n, type, place + bytes(at - first, type));
      });
    });
  }

  void broadcast(void* data, int64_t count, DType type, int root, Stream) override {
    auto* const mine = static_cast<std::byte*>(data);
    DMC_CHECK(root >= 0 && root < size_);
    meet({Kind::kBroadcast, count, type, root, mine, mine}, [&] {
      if (rank_ != root) copy(of(root).from, bytes(count, type), mine);
    });
  }

  void barrier(Stream) override {
    meet({Kind::kBarrier}, [] {});
  }

  void abort() override { meeting_->abort(); }
  void recover() override { meeting_->recover(); }

 private:
  static int64_t bytes(int64_t count, DType type) {
    return count * static_cast<int64_t>(dtype_size(type));
  }
  static void copy(const std::byte* from, int64_t size, std::byte* to) {
    if (size > 0) std::memcpy(to, from, static_cast<size_t>(size));
  }
  const Call& of(int rank) const { return meeting_->calls()[static_cast<size_t>(rank)]; }

  // `work` throws nothing: the others would wait for this rank to leave.
  template <class Work>
  void meet(const Call& call, const Work& work) {
    DMC_CHECK(call.count >= 0 && dtype_size(call.type) > 0);
    meeting_->enter(static_cast<size_t>(rank_), call);
    // All ranks find the same, so none is left alone.
    const bool same = std::ranges::all_of(
        meeting_->calls(), [&](const Call& other) { return other.same_as(meeting_->calls()[0]); });
    if (same) work();
    meeting_->leave();
    DMC_CHECK(same);
  }

  // emit(sums, first, count) for the sums over all ranks of numbers [begin, end).
  template <class Emit>
  void sum_ranges(int64_t begin, int64_t end, DType type, const Emit& emit) const {
    std::array<float, kAtOnce> sum, next;
    for (int64_t at = begin; at < end; at += kAtOnce) {
      const int64_t n = std::min(kAtOnce, end - at), offset = bytes(at, type);
      widen_floats(of(0).from + offset, n, type, sum.data());
      for (int rank = 1; rank < size_; ++rank) {
        widen_floats(of(rank).from + offset, n, type, next.data());
        for (int64_t i = 0; i < n; ++i) {
          sum[static_cast<size_t>(i)] += next[static_cast<size_t>(i)];
        }
      }
      emit(sum.data(), at, n);
    }
  }

  const std::shared_ptr<Meeting> meeting_;
  const int rank_, size_;
};

}  // namespace

std::vector<std::unique_ptr<Group>> thread_groups(int size) {
  DMC_CHECK(size > 0);
  const auto meeting = std::make_shared<Meeting>(size);
  std::vector<std::unique_ptr<Group>> groups;
  for (int rank = 0; rank < size; ++rank) {
    groups.push_back(std::make_unique<ThreadGroup>(meeting, rank, size));
  }
  return groups;
}

}  // namespace dmc::comm
