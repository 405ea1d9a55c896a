#include "comm/rank_threads.h"

#include <optional>
#include <utility>

#include "base/look_for.h"
#include "base/parallel.h"
#include "base/serial_scope.h"

namespace dmc::comm {

RankThreads::RankThreads(std::vector<std::unique_ptr<Group>> groups) : groups_(std::move(groups)) {
  DMC_CHECK(!groups_.empty());
  for (int rank = 1; rank < size(); ++rank) threads_.emplace_back([this, rank] { serve(rank); });
}

RankThreads::~RankThreads() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void RankThreads::run(const std::function<void(int)>& work) {
  const std::lock_guard one_at_a_time(run_mutex_);
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    cause_ = consequence_ = nullptr;
    busy_ = size() - 1;
    ++runs_;
  }
  wake_.notify_all();
  work_as(0);
  look_for([this] { return busy_ == 0; });
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return busy_ == 0; });
  if (!cause_ && !consequence_) return;
  for (const auto& group : groups_) group->recover();
  std::rethrow_exception(cause_ ? cause_ : consequence_);
}

void RankThreads::serve(int rank) {
  int64_t seen = 0;
  for (;;) {
    look_for([&] { return runs_ != seen; });
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || runs_ != seen; });
      if (stopping_) return;
      seen = runs_;
    }
    work_as(rank);
    const std::lock_guard lock(mutex_);
    if (--busy_ == 0) done_.notify_one();
  }
}

void RankThreads::work_as(int rank) {
  std::optional<SerialScope> serial;
  if (size() >= num_threads()) serial.emplace();
  try {
    (*work_)(rank);
  } catch (const RankLost&) {
    note_failure(/*is_consequence=*/true);
    group(rank).abort();
  } catch (...) {
    note_failure(/*is_consequence=*/false);
    group(rank).abort();
  }
}

void RankThreads::note_failure(bool is_consequence) {
  const std::lock_guard lock(mutex_);
  std::exception_ptr& place = is_consequence ? consequence_ : cause_;
  if (!place) place = std::current_exception();
}

}  // namespace dmc::comm
