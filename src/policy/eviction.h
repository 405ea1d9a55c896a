// Which slots a stream drops when it holds too many, in a form that a GPU's kernels share: a rule
// gives each closed slot a worth, and the one of least worth goes, the first of several.
#pragma once

#include <cstdint>
#include <limits>

namespace dmc::policy {

enum class Eviction : uint8_t {
  kNone,
  // StreamingLLM (Xiao et al. 2023): the first tokens, which attention falls back on, and the last.
  kOutsideWindow,
  // TOVA (Oren et al. 2024): drops what the newest query attends to least.
  kLeastAttended,
  // H2O (Zhang et al. 2023): half of the budget for the newest tokens, half for those that all
  // queries together attended to most.
  kLightest,
};

// Tokens at the start of a text that kOutsideWindow keeps.
inline constexpr int64_t kSinks = 4;

// A slot as an eviction rule sees it. Attention is that of one KV head: the mean over its query
// heads.
struct SlotStats {
  int64_t position = 0;    // of the slot's token
  float attention = 0.0f;  // that the newest query gave it
  double total = 0.0;      // that all queries since, its own included, gave it
};

// Whether the rule looks at attention.
constexpr bool uses_attention(Eviction rule) {
  return rule == Eviction::kLeastAttended || rule == Eviction::kLightest;
}

// Of a closed slot, when the newest token is at position `newest`.
constexpr double slot_worth(Eviction rule, const SlotStats& slot, int64_t newest, int64_t budget) {
  constexpr double kStays = std::numeric_limits<double>::infinity();
  switch (rule) {
    case Eviction::kOutsideWindow:
      return slot.position < kSinks ? kStays : static_cast<double>(slot.position);
    case Eviction::kLeastAttended:
      return slot.attention;
    case Eviction::kLightest:
      return slot.position > newest - budget / 2 ? kStays : slot.total;
    default:
      return kStays;
  }
}

// A budget that grows with the text begins with so many slots: with fewer, a rule would have to
// choose among tokens it has hardly seen used.
inline constexpr int64_t kLeastSlots = 40;

// How many slots a stream may hold, the open one included.
struct Budget {
  int64_t slots = 0;  // 0: one for every `cr` tokens seen, at least kLeastSlots
  double cr = 1.0;

  constexpr int64_t at(int64_t tokens) const {
    if (slots > 0) return slots;
    const double share = static_cast<double>(tokens) / cr;
    const auto whole = static_cast<int64_t>(share);
    const int64_t rounded_up = static_cast<double>(whole) < share ? whole + 1 : whole;
    return rounded_up > kLeastSlots ? rounded_up : kLeastSlots;
  }
};

// SnapKV (Li et al. 2024): what a slot counts for, with its two neighbours on both sides, so that a
// fact is kept in one piece. attention [count]; outside of it is 0.
constexpr double with_neighbours(const double* attention, int64_t count, int64_t slot) {
  constexpr int64_t kReach = 2;
  double sum = 0.0;
  for (int64_t i = slot - kReach; i <= slot + kReach; ++i) {
    if (i >= 0 && i < count) sum += attention[i];
  }
  return sum;
}

}  // namespace dmc::policy
