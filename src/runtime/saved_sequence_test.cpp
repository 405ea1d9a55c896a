// A sequence that was saved goes on in another runner of the same model to the bit.
#include <gtest/gtest.h>

#include "base/rng.h"
#include "engine/session_store.h"
#include "runtime/decoder_runner.h"

namespace dmc::runtime {
namespace {

struct Setup {
  const char* model;
  RunnerOptions options;
};

std::vector<Setup> setups() {
  std::vector<Setup> all;
  for (const char* model :
       {"models/builtin", "models/builtin-4x", "models/builtin-dms", "models/builtin-delayed"}) {
    all.push_back({model, {}});
    all.push_back({model, {.kv = DType::kI8}});
  }
  all.push_back({"models/builtin-dms", {.compression = {.cr = 3.0}}});
  all.push_back({"models/builtin", {.compression = {.forced_cr = 3.0}}});
  return all;
}

std::vector<int32_t> random_tokens(int64_t count) {
  Rng rng(9);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(rng.below(2048)));
  return tokens;
}

TEST(SavedSequence, GoesOnToTheBitInAnotherRunner) {
  const std::vector<int32_t> text = random_tokens(300);
  for (const auto& [name, options] : setups()) {
    SCOPED_TRACE(name);
    const auto model = load_model(name, DType::kF32);
    DecoderRunner one(model, options), other(model, options);
    EXPECT_EQ(engine::fingerprint(one), engine::fingerprint(other));
    const auto a = one.add_sequence();
    engine::prefill(one, a, text);
    const auto b = other.restore(one.save(a).value());
    for (int32_t token : {7, 70, 700}) {
      EXPECT_EQ(engine::decode(one, {&a, 1}, {&token, 1}),
                engine::decode(other, {&b, 1}, {&token, 1}));
    }
    EXPECT_EQ(engine::prefill(one, a, text), engine::prefill(other, b, text));
    EXPECT_EQ(one.slots(a), other.slots(b));
  }
}

TEST(SavedSequence, EverythingThatMattersIsInTheFingerprint) {
  std::vector<uint64_t> all;
  for (const auto& [name, options] : setups()) {
    DecoderRunner runner(load_model(name, DType::kF32), options);
    all.push_back(engine::fingerprint(runner));
  }
  DecoderRunner rounded(load_model("models/builtin", DType::kBF16), {});
  all.push_back(engine::fingerprint(rounded));
  std::ranges::sort(all);
  EXPECT_EQ(std::ranges::adjacent_find(all), all.end());
}

TEST(SavedSequence, PoliciesThatLookAtAttentionAreNotSaved) {
  DecoderRunner runner(load_model("models/builtin", DType::kF32),
                       {.compression = {.policy = "h2o", .budget = 64}});
  EXPECT_THROW(engine::fingerprint(runner), Error);
}

}  // namespace
}  // namespace dmc::runtime
