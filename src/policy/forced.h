// The policy "forced" in two parts, so that a GPU can take its decisions without a table of the
// whole text: what depends on the stream alone, and one comparison a token.
#pragma once

#include <cstdint>

#include "base/rng.h"

namespace dmc::policy {

// Share of its tokens for which stream `stream` (DecisionInput::stream) opens a slot.
double forced_opening_share(int64_t stream, double cr);

// Whether the token at `position` merges.
constexpr bool forced_merge(double opening_share, int64_t stream, int64_t position) {
  return random_uniform(/*seed=*/4, static_cast<uint64_t>(stream),
                        static_cast<uint64_t>(position)) >= opening_share;
}

}  // namespace dmc::policy
