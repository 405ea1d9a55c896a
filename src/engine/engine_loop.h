// The thread that owns a model's state: requests come in from any thread, their listeners are
// called here.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/scheduler.h"

namespace dmc::engine {

class EngineLoop {
 public:
  struct Options {
    SchedulerOptions scheduler;
    int64_t queue = 256;  // requests that may wait
    // Called once, by the loop's thread, when steps fail again and again.
    std::function<void()> on_broken;
  };
  struct State {
    SchedulerCounts counts;
    SchedulerLoad load;
    std::optional<SessionCounts> sessions;  // nothing where none are kept
    bool broken = false;
  };

  // `runner` must outlive it, and is used by the loop alone.
  EngineLoop(ModelRunner& runner, Options options);
  ~EngineLoop();

  // All of them or none. Error(kExhausted) if so many do not fit the queue, Error(kUnavailable)
  // once it stops. What is wrong with a request itself is told to its listener.
  void submit(std::vector<std::shared_ptr<Request>> requests);
  State state() const;
  void stop();  // what still runs is told so

 private:
  void run();
  bool work(std::vector<std::shared_ptr<Request>> arrived);
  void end(const std::vector<std::shared_ptr<Request>>& arrived);
  void publish();

  Options options_;
  Scheduler scheduler_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<Request>> inbox_;
  State state_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace dmc::engine
