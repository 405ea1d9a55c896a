// The fuzz targets without sanitizers, all in one program: what was found before stays within each
// target's limits, and twice the input takes twice the time, not four times. A file that is small
// and takes for ever is as good an attack as one that crashes.
#include <gtest/gtest.h>
#include <time.h>

#include <map>
#include <set>

#include "tests/fuzz/target.h"

// CMake gives the targets' functions these names.
#define DMC_FUZZ_TARGET(name)                                   \
  extern "C" int fuzz_##name(const uint8_t* data, size_t size); \
  namespace dmc::fuzz {                                         \
  extern const Limits kLimits_##name;                           \
  std::vector<Family> growing_inputs_##name();                  \
  }
DMC_FUZZ_TARGET(adapter)
DMC_FUZZ_TARGET(chat_template)
DMC_FUZZ_TARGET(gguf)
DMC_FUZZ_TARGET(http)
DMC_FUZZ_TARGET(index)
DMC_FUZZ_TARGET(jsonl)
DMC_FUZZ_TARGET(model_config)
DMC_FUZZ_TARGET(request)
DMC_FUZZ_TARGET(safetensors)
DMC_FUZZ_TARGET(session)
DMC_FUZZ_TARGET(side_files)
DMC_FUZZ_TARGET(tokenizer_json)
DMC_FUZZ_TARGET(tokenizer_model)
DMC_FUZZ_TARGET(vocab_merges)
#undef DMC_FUZZ_TARGET

namespace dmc::fuzz {
namespace {

namespace fs = std::filesystem;

struct Target {
  const char* name;
  int (*run)(const uint8_t*, size_t);
  const Limits& limits;
  std::vector<Family> (*growing_inputs)();
};
#define DMC_FUZZ_TARGET(name) \
  { #name, fuzz_##name, kLimits_##name, growing_inputs_##name }
const Target kTargets[] = {
    DMC_FUZZ_TARGET(adapter),
    DMC_FUZZ_TARGET(chat_template),
    DMC_FUZZ_TARGET(gguf),
    DMC_FUZZ_TARGET(http),
    DMC_FUZZ_TARGET(index),
    DMC_FUZZ_TARGET(jsonl),
    DMC_FUZZ_TARGET(model_config),
    DMC_FUZZ_TARGET(request),
    DMC_FUZZ_TARGET(safetensors),
    DMC_FUZZ_TARGET(session),
    DMC_FUZZ_TARGET(side_files),
    DMC_FUZZ_TARGET(tokenizer_json),
    DMC_FUZZ_TARGET(tokenizer_model),
    DMC_FUZZ_TARGET(vocab_merges),
};
#undef DMC_FUZZ_TARGET

// Of the processor, so that a busy machine makes no difference.
double seconds_of(const Target& target, const std::string& input) {
  const auto now = [] {
    timespec time{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double begin = now();
  target.run(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  return now() - begin;
}

double best_of_three(const Target& target, const std::string& input) {
  double best = seconds_of(target, input);
  for (int i = 0; i < 2; ++i) best = std::min(best, seconds_of(target, input));
  return best;
}

class Readers : public testing::TestWithParam<Target> {};

TEST_P(Readers, WhatWasFoundBeforeStaysWithinTheLimits) {
  for (const char* kind : {"seeds", "regressions"}) {
    const fs::path folder = fs::path("tests/fuzz") / kind / GetParam().name;
    if (!fs::exists(folder)) continue;
    for (const auto& entry : fs::directory_iterator(folder)) {
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string input{std::istreambuf_iterator<char>(file), {}};
      EXPECT_LT(seconds_of(GetParam(), input), GetParam().limits.seconds) << entry.path();
    }
  }
}

// Four times the input: linear is 4, with a logarithm and caches that no longer fit some more,
// quadratic 16.
TEST_P(Readers, TwiceTheInputTakesTwiceTheTime) {
  constexpr size_t kLeast = 1 << 14, kMost = 1 << 20;
  constexpr double kMeasurable = 0.02;
  for (const Family& family : GetParam().growing_inputs()) {
    size_t n = kLeast;
    double small = best_of_three(GetParam(), family.make(n));
    while (small < kMeasurable && n < kMost) small = best_of_three(GetParam(), family.make(n *= 2));
    const double large = best_of_three(GetParam(), family.make(4 * n));
    EXPECT_LT(large, 9 * small + kMeasurable)
        << family.name << ": " << n << " took " << small << " s, four times that " << large << " s";
    EXPECT_LT(large, GetParam().limits.seconds) << family.name << " of " << 4 * n;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Readers, testing::ValuesIn(kTargets),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace dmc::fuzz
