// A thread for each rank of this process.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/group.h"

namespace dmc::comm {

class RankThreads {
 public:
  // A group for each rank, in their order.
  explicit RankThreads(std::vector<std::unique_ptr<Group>> groups);
  ~RankThreads();

  int size() const { return static_cast<int>(groups_.size()); }
  Group& group(int rank) { return *groups_[static_cast<size_t>(rank)]; }

  // Calls `work` with each rank at the same time, rank 0 on the caller's thread, and returns when
  // all have ended. If one throws, the others' collectives throw RankLost; the first exception that
  // is not that is rethrown, and the ranks can be used again. Where there are as many ranks as
  // threads, each computes on its own alone.
  void run(const std::function<void(int rank)>& work);

 private:
  void serve(int rank);
  void work_as(int rank);
  void note_failure(bool is_consequence);

  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<std::thread> threads_;
  std::mutex run_mutex_, mutex_;  // for all of a run; for what is below
  std::condition_variable wake_, done_;
  const std::function<void(int)>* work_ = nullptr;
  std::exception_ptr cause_, consequence_;
  bool stopping_ = false;
  std::atomic<int64_t> runs_ = 0;  // these two change under the mutex only
  std::atomic<int> busy_ = 0;
};

}  // namespace dmc::comm
