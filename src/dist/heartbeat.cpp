#include "dist/heartbeat.h"

#include <algorithm>
#include <sstream>

#include "base/join.h"

namespace dmc::dist {
namespace {

constexpr int kIntervalsToWatch = 4;    // a beat may be late on a busy machine
constexpr int kIntervalsToLinger = 30;  // the others may be computing for a while yet

std::string key(const char* what, int rank) { return what + std::to_string(rank); }

std::vector<uint8_t> bytes(const std::string& text) { return {text.begin(), text.end()}; }

std::string as_text(const std::vector<int>& ranks) {
  return join(ranks, " ", [](int rank) { return std::to_string(rank); });
}

std::vector<int> as_ranks(const std::string& text) {
  std::istringstream in(text);
  std::vector<int> result;
  for (int rank = 0; in >> rank;) result.push_back(rank);
  return result;
}

}  // namespace

Heartbeat::Heartbeat(const Store& store, const Place& place, std::chrono::milliseconds interval)
    : served_(store),
      store_(store->clone()),
      place_(place),
      interval_(interval),
      seen_(static_cast<size_t>(place.size)),
      thread_([this] { beat(); }) {}

Heartbeat::~Heartbeat() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  stopped_.notify_all();
  thread_.join();
}

void Heartbeat::beat() {
  try {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      store_->add(key("beats", place_.rank), 1);
      stopped_.wait_for(lock, interval_, [this] { return stop_; });
    }
  } catch (const std::exception&) {
    // The store is gone, and so is who served it: the next exchange will say so.
  }
}

// Those whose numbers have stood still for some intervals.
std::vector<int> Heartbeat::silent_ranks() {
  std::vector<int> result;
  for (int rank = 0; rank < place_.size; ++rank) {
    Seen& seen = seen_[static_cast<size_t>(rank)];
    const int64_t count = store_->add(key("beats", rank), 0);
    const auto now = std::chrono::steady_clock::now();
    if (count != seen.count) {
      seen = {count, now};
    } else if (now - seen.since > kIntervalsToWatch * interval_) {
      result.push_back(rank);
    }
  }
  return result;
}

std::vector<int> Heartbeat::watch_for_silence() {
  // Once more than it takes, because who is gone may have counted just before.
  for (int i = 0; i < kIntervalsToWatch + 2; ++i) {
    silent_ranks();
    std::this_thread::sleep_for(interval_);
  }
  return silent_ranks();
}

bool Heartbeat::misses_any() {
  try {
    return !silent_ranks().empty();
  } catch (const std::exception&) {
    return true;  // the one that served the store
  }
}

std::vector<int> Heartbeat::find_lost() {
  try {
    if (!store_->check({"lost"})) {
      // Of several who come at once, the first is believed.
      store_->compareSet("lost", {}, bytes(as_text(watch_for_silence())));
    }
    const std::vector<uint8_t> told = store_->get("lost");
    store_->set(key("asked", place_.rank), bytes("yes"));
    return as_ranks(std::string(told.begin(), told.end()));
  } catch (const std::exception&) {
    return {0};
  }
}

void Heartbeat::let_others_ask(const std::vector<int>& lost) {
  std::vector<std::string> asked;
  for (int rank = 0; rank < place_.size; ++rank) {
    if (std::ranges::find(lost, rank) == lost.end()) asked.push_back(key("asked", rank));
  }
  try {
    store_->wait(asked, kIntervalsToLinger * interval_);
  } catch (const std::exception&) {
    // Some did not ask in time; they will find the store gone.
  }
}

PeerLost Heartbeat::peer_lost(const std::string& what) {
  const std::vector<int> lost = find_lost();
  if (place_.serves_store) let_others_ask(lost);
  const std::string first_line = what.substr(0, what.find('\n'));
  if (lost.empty()) {
    return {lost, "the processes of this run could not exchange numbers (" + first_line +
                      "); --resume goes on from the last checkpoint"};
  }
  return {lost, named(as_text(lost), place_.size) +
                    " is gone, and the run cannot go on without it; see what it "
                    "said; --resume goes on from the last checkpoint"};
}

}  // namespace dmc::dist
