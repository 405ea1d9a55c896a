#include "dist/thread_groups.h"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace dmc::dist {
namespace {

// Where threads meet, and the tensors that they brought.
class Meeting {
 public:
  explicit Meeting(int size) : tensors_(static_cast<size_t>(size)) {}

  // `work` sees the tensors of all ranks and runs on the thread that comes last.
  void meet(int rank, const at::Tensor& mine,
            const std::function<void(std::vector<at::Tensor>&)>& work) {
    std::unique_lock lock(mutex_);
    tensors_[static_cast<size_t>(rank)] = mine;
    if (++here_ == tensors_.size()) {
      work(tensors_);
      here_ = 0;
      ++meetings_;
      all_here_.notify_all();
      return;
    }
    const int64_t this_one = meetings_;
    all_here_.wait(lock, [&] { return meetings_ != this_one || left_; });
    if (meetings_ == this_one) throw PeerLost({}, "another thread has ended");
  }

  void leave() {
    const std::lock_guard lock(mutex_);
    left_ = true;
    all_here_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable all_here_;
  std::vector<at::Tensor> tensors_;
  size_t here_ = 0;
  int64_t meetings_ = 0;
  bool left_ = false;
};

class ThreadGroup : public Group {
 public:
  ThreadGroup(Meeting& meeting, int rank, int size) : meeting_(meeting), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void sum(const at::Tensor& x) override {
    meeting_.meet(rank_, x, [](std::vector<at::Tensor>& all) {
      const at::Tensor total = total_of(all);
      for (at::Tensor& each : all) each.copy_(total);
    });
  }
  void sum_to(const at::Tensor& x, int to) override {
    meeting_.meet(rank_, x, [to](std::vector<at::Tensor>& all) {
      const at::Tensor total = total_of(all);
      for (at::Tensor& each : all) each.zero_();  // nobody may count on it
      all[static_cast<size_t>(to)].copy_(total);
    });
  }
  void broadcast(const at::Tensor& x, int from) override {
    meeting_.meet(rank_, x, [from](std::vector<at::Tensor>& all) {
      const at::Tensor source = all[static_cast<size_t>(from)].clone();
      for (at::Tensor& each : all) each.copy_(source);
    });
  }

 private:
  static at::Tensor total_of(const std::vector<at::Tensor>& all) {
    at::Tensor total = all.front().clone();
    for (size_t i = 1; i < all.size(); ++i) total += all[i];
    return total;
  }

  Meeting& meeting_;
  int rank_, size_;
};

class Failures {
 public:
  void note(const std::exception_ptr& failure, bool is_consequence) {
    const std::lock_guard lock(mutex_);
    std::exception_ptr& place = is_consequence ? consequence_ : cause_;
    if (!place) place = failure;
  }
  void rethrow() const {
    if (cause_) std::rethrow_exception(cause_);
    if (consequence_) std::rethrow_exception(consequence_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr cause_, consequence_;
};

}  // namespace

void run_as_threads(int size, const std::function<void(Group&)>& work) {
  Meeting meeting(size);
  Failures failures;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadGroup group(meeting, rank, size);
      try {
        work(group);
      } catch (const PeerLost&) {
        failures.note(std::current_exception(), /*is_consequence=*/true);
      } catch (...) {
        failures.note(std::current_exception(), /*is_consequence=*/false);
      }
      meeting.leave();
    });
  }
  for (std::thread& thread : threads) thread.join();
  failures.rethrow();
}

}  // namespace dmc::dist
