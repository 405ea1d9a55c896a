#include "policy/holding.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace dmc::policy {
namespace {

constexpr int64_t kTokens = 4096;

// Tokens whose logits are spread around `mean`, decided in chunks of `chunk`; the slots they take.
int64_t slots_taken(double mean, double spread, double wanted, int64_t chunk) {
  Rng rng(7);
  int64_t tokens = 0, slots = 0;
  while (tokens < kTokens) {
    const double bias = holding_bias(tokens, static_cast<double>(slots), wanted);
    for (int64_t i = 0; i < chunk; ++i, ++tokens) {
      const double u = rng.uniform();
      const double logit = mean + spread * std::log((u + 1e-9) / (1.0 - u + 1e-9));
      slots += logit + bias > 0.0 ? 0 : 1;
    }
  }
  return slots;
}

TEST(Holding, ReachesTheRatioFromEitherSide) {
  for (double wanted : {1.5, 2.0, 4.0, 8.0}) {
    for (double mean : {-5.0, -1.0, 0.0, 3.0}) {
      for (int64_t chunk : {1, 16}) {
        for (double spread : {1.0, 10.0}) {
          EXPECT_NEAR(static_cast<double>(slots_taken(mean, spread, wanted, chunk)),
                      kTokens / wanted, 50.0)
              << "mean " << mean << ", spread " << spread << ", chunk " << chunk;
        }
      }
    }
  }
}

TEST(Holding, WantsNothingWhenTheRatioIsRight) {
  EXPECT_EQ(holding_bias(0, 0.0, 4.0), 0.0);
  EXPECT_EQ(holding_bias(400, 100.0, 4.0), 0.0);
  EXPECT_GT(holding_bias(400, 110.0, 4.0), 0.0) << "too many slots: more must merge";
  EXPECT_LT(holding_bias(400, 90.0, 4.0), 0.0);
}

}  // namespace
}  // namespace dmc::policy
