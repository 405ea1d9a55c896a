// One (sequence, layer, KV head) of a cache.
#pragma once

#include <deque>
#include <vector>

#include "cache/open_slot.h"
#include "cache/slot_list.h"
#include "policy/policy.h"

namespace dmc::cache {

// A closed slot that a late policy decided against.
struct Mark {
  int64_t position, slot;
};

struct Stream {
  SlotList closed;
  OpenSlot open;
  // Only with a policy that drops slots: of the closed slots and of the open one.
  std::vector<policy::SlotStats> stats = {};
  policy::SlotStats open_stats = {};
  std::deque<Mark> marks = {};  // only with a late policy; oldest first

  int64_t slots() const { return closed.size() + (open.empty() ? 0 : 1); }
};

}  // namespace dmc::cache
