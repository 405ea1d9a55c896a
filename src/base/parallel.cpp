#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/look_for.h"
#include "base/serial_scope.h"

namespace dmc {
namespace {

thread_local bool inside_parallel_for = false;

struct Job {
  int64_t begin, end, grain;
  const std::function<void(int64_t, int64_t)>* fn;
  std::atomic<int64_t> next;
  std::mutex error_mutex;
  std::exception_ptr error;

  void work() {
    inside_parallel_for = true;
    for (;;) {
      const int64_t first = next.fetch_add(grain);
      if (first >= end) break;
      try {
        (*fn)(first, std::min(first + grain, end));
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
      }
    }
    inside_parallel_for = false;
  }
};

class Pool {
 public:
  ~Pool() { resize(1); }

  int size() const { return size_; }

  void resize(int count) {
    const std::lock_guard no_work(run_mutex_);
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    stopping_ = false;
    for (int i = 1; i < count; ++i) threads_.emplace_back([this] { serve(); });
    size_ = count;
  }

  void run(Job& job) {
    const std::lock_guard one_at_a_time(run_mutex_);
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++generation_;
    }
    wake_.notify_all();
    job.work();
    {
      const std::lock_guard lock(mutex_);
      job_ = nullptr;  // a thread that wakes only now finds nothing to do
    }
    look_for([this] { return busy_ == 0; });
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
  }

 private:
  void serve() {
    uint64_t seen = 0;
    for (;;) {
      look_for([&] { return generation_ != seen; });
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || (job_ != nullptr && generation_ != seen); });
      if (stopping_) return;
      seen = generation_;
      Job* job = job_;
      ++busy_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  std::atomic<int> size_ = 1;
  std::mutex run_mutex_, mutex_;  // for all of a job or of a change of size; for what is below
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  std::atomic<uint64_t> generation_ = 0;  // these two change under the mutex only
  std::atomic<int> busy_ = 0;
  bool stopping_ = false;
};

Pool& pool() {
  static Pool instance;
  static const bool started = [] {
    instance.resize(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
    return true;
  }();
  static_cast<void>(started);
  return instance;
}

struct LentTeam {
  ThreadTeam team;
  int size = 0;
};

LentTeam& lent() {
  static LentTeam instance;
  return instance;
}

}  // namespace

void set_num_threads(int count) {
  DMC_CHECK(!inside_parallel_for);  // it would wait for itself
  pool().resize(std::max(1, count));
}

SerialScope::SerialScope() : outer_(std::exchange(inside_parallel_for, true)) {}
SerialScope::~SerialScope() { inside_parallel_for = outer_; }

int num_threads() { return lent().team ? lent().size : pool().size(); }

void use_thread_team(ThreadTeam team, int size) { lent() = {std::move(team), size}; }

void parallel_for(int64_t begin, int64_t end, int64_t grain,
                  const std::function<void(int64_t, int64_t)>& fn) {
  if (begin >= end) return;
  grain = std::max<int64_t>(1, grain);
  if (inside_parallel_for || end - begin <= grain || num_threads() == 1) {
    for (int64_t first = begin; first < end; first += grain)
      fn(first, std::min(first + grain, end));
    return;
  }
  Job job{begin, end, grain, &fn, begin, {}, {}};
  if (lent().team) {
    lent().team([&job] { job.work(); });
  } else {
    pool().run(job);
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace dmc
