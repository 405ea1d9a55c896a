// Copies of this program as the other processes of a run on one machine.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "dist/place.h"

namespace dmc::dist {

// Told a sentence for the user, from any thread.
using Warn = std::function<void(const std::string&)>;

class Processes {
 public:
  // Starts ranks 1 to place.size - 1 with this process's own command line, each told its place in
  // the environment as a launcher would. `place` is that of rank 0, this process, which serves the
  // store. What they print is kept, not shown. Should this process die, so do they. Where one is
  // stopped (SIGSTOP, a debugger), all others wait, and `warn`, if there is one, is told which.
  explicit Processes(const Place& place, Warn warn = {});
  // Ends those that still run.
  ~Processes();
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  // Why `rank` ended, if it did and failed: its own sentence, or the signal that ended it.
  std::optional<Error> failure(int rank);
  // Throws the failure of the lowest rank that has one.
  void check();
  // Until all have ended, well or not.
  void wait();

 private:
  struct Child {
    pid_t id = -1;
    int output = -1;            // a file in memory, of what it says on stderr
    std::optional<int> status;  // as waitpid has it; nothing while it runs
  };
  Child& reaped(int rank, bool wait_for_end);
  void watch(const std::vector<pid_t>& ids, const Warn& warn);

  std::vector<Child> children_;  // of ranks 1, 2, ...
  std::mutex mutex_;
  std::condition_variable ending_;
  bool ends_ = false;
  std::thread watcher_;
};

}  // namespace dmc::dist
