// One (sequence, layer, KV head) of a cache.
#pragma once

#include <vector>

#include "cache/open_slot.h"
#include "cache/slot_list.h"
#include "policy/policy.h"

namespace dmc::cache {

// A token that is still a slot of its own because it is among the newest.
struct RawToken {
  policy::Decision decision;
  float importance;
};

// With a delay, the newest tokens: the one at a position p has the slot first + p % delay of the
// stream's list, and its entry in `tokens` at p % delay.
struct RawWindow {
  std::vector<RawToken> tokens;
  int64_t first = 0;
};

struct Stream {
  SlotList closed;  // raw tokens among them
  OpenSlot open;    // empty as long as all tokens are raw
  RawWindow raw = {};
  // Only with a delay or a policy that drops slots: of the closed slots and of the open one.
  std::vector<policy::SlotStats> stats = {};
  policy::SlotStats open_stats = {};

  int64_t slots() const { return closed.size() + (open.empty() ? 0 : 1); }
};

}  // namespace dmc::cache
