#include "engine/engine_loop.h"

#include <iostream>
#include <string>
#include <utility>

namespace dmc::engine {
namespace {

constexpr int kBrokenAfter = 3;  // failed steps, without a good one between them

}  // namespace

EngineLoop::EngineLoop(ModelRunner& runner, Options options)
    : options_(std::move(options)), scheduler_(runner, options_.scheduler) {
  publish();
  thread_ = std::thread([this] { run(); });
}

EngineLoop::~EngineLoop() { stop(); }

void EngineLoop::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void EngineLoop::submit(std::vector<std::shared_ptr<Request>> requests) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || state_.broken) throw unavailable("", "the server is about to end; ask another");
  const int64_t waiting = state_.load.waiting + std::ssize(inbox_);
  if (waiting + std::ssize(requests) > options_.queue) {
    throw exhausted("the queue is full (" + std::to_string(waiting) + " of " +
                    std::to_string(options_.queue) + " requests wait); try again later");
  }
  inbox_.insert(inbox_.end(), std::make_move_iterator(requests.begin()),
                std::make_move_iterator(requests.end()));
  changed_.notify_one();
}

EngineLoop::State EngineLoop::state() const {
  State state;
  {
    const std::lock_guard lock(mutex_);
    state = state_;
  }
  const SessionStore* const sessions = options_.scheduler.sessions;
  if (sessions != nullptr) state.sessions = sessions->counts();
  return state;
}

void EngineLoop::publish() {
  const SchedulerLoad load = scheduler_.load();
  const std::lock_guard lock(mutex_);
  state_.counts = scheduler_.counts();
  state_.load = load;
  state_.broken = state_.broken || state_.counts.failed_steps_in_a_row >= kBrokenAfter;
}

void EngineLoop::run() {
  bool busy = false, told = false;
  for (;;) {
    std::vector<std::shared_ptr<Request>> arrived;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return busy || stopping_ || !inbox_.empty(); });
      arrived = std::exchange(inbox_, {});
      if (stopping_) {
        lock.unlock();
        end(arrived);
        return;
      }
    }
    busy = work(std::move(arrived));
    publish();
    if (state().broken && !std::exchange(told, true) && options_.on_broken) options_.on_broken();
  }
}

void EngineLoop::end(const std::vector<std::shared_ptr<Request>>& arrived) {
  const Error error = unavailable("", "the server ended before the answer was complete");
  for (const auto& request : arrived) request->listener->failed(error);
  scheduler_.fail_all(error);
  publish();
}

bool EngineLoop::work(std::vector<std::shared_ptr<Request>> arrived) {
  for (auto& request : arrived) {
    try {
      scheduler_.submit(request);
    } catch (const Error& error) {
      request->listener->failed(error);
    }
  }
  try {
    return scheduler_.step();
  } catch (const std::exception& error) {  // nobody knows what is whole
    std::cerr << "dmc: the scheduler failed: " << error.what() << "\n";
    scheduler_.fail_all(internal_error(error.what()));
    return false;
  }
}

}  // namespace dmc::engine
