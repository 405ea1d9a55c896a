// What the tests of kernels share.
#pragma once

// As the kernels that have a version for it.
#ifndef HWY_WANT_AVX3_DL
#define HWY_WANT_AVX3_DL
#endif

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/backend.h"

namespace dmc::kernels {

// Random numbers in [-1, 1).
inline std::vector<float> random_floats(size_t count, Rng& rng) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(2.0 * rng.uniform() - 1.0);
  return values;
}

// Calls fn for every backend, and for the SIMD one on every instruction set this machine has.
template <class Fn>
void for_each_variant(Fn&& fn) {
  for (const Backend& candidate : backends()) {
    if (candidate.name == "ref") continue;
    for (int64_t targets = hwy::SupportedTargets() & HWY_TARGETS; targets != 0;
         targets &= targets - 1) {
      const int64_t target = targets & -targets;
      // Lesser ones stay, for kernels that have no version for this one.
      hwy::SetSupportedTargetsForTest(targets);
      hwy::GetChosenTarget().Update(targets);
      SCOPED_TRACE(std::string(candidate.name) + " " + hwy::TargetName(target));
      fn(candidate);
    }
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
}

}  // namespace dmc::kernels
