// Tells which process of a run is gone. Whatever carries the tensors notices only that somebody is.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "dist/group.h"
#include "dist/store.h"

namespace dmc::dist {

struct Timing {
  // The longest wait for a rank that lives. The first may be saving meanwhile.
  std::chrono::milliseconds exchange = std::chrono::minutes(30);
  std::chrono::milliseconds heartbeat = std::chrono::seconds(1);
};

// Counts up a number in the store as long as this object lives, on a thread of its own, and looks
// at the numbers of the others when asked.
class Heartbeat {
 public:
  Heartbeat(const Store& store, const Place& place, std::chrono::milliseconds interval);
  ~Heartbeat();
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // After an exchange failed with `what` it said: an error that names the ranks which are gone. The
  // first to ask finds them by watching for some intervals; those that ask later are told the same,
  // though the first may be gone, too, by then. (For that the process that serves the store stays
  // for up to half a minute.) Where the store itself is gone, it is rank 0.
  PeerLost peer_lost(const std::string& what);

  // Whether some rank is gone, as far as calls in the past have shown, each of which looks at the
  // numbers once. For exchanges that would wait for it forever.
  bool misses_any();

 private:
  void beat();
  std::vector<int> silent_ranks();
  std::vector<int> watch_for_silence();
  std::vector<int> find_lost();
  void let_others_ask(const std::vector<int>& lost);

  struct Seen {
    int64_t count = -1;
    std::chrono::steady_clock::time_point since;  // when it was first seen
  };

  const Store served_;  // kept, because a server may live in it
  const Store store_;   // a connection of its own: another thread may be waiting on the first
  const Place place_;
  const std::chrono::milliseconds interval_;
  std::vector<Seen> seen_;  // by rank
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace dmc::dist
