#include "model/published.h"
#include "base/join.h"

#include <gtest/gtest.h>

#include "model/families/family.h"

namespace dmc::model {
namespace {

struct Known {
  const char* name;
  double parameters;  // as counted in the published checkpoints
};
constexpr Known kKnown[] = {
    {"tinyllama-1.1b", 1'100'048'384},    {"llama-2-7b", 6'738'415'616},
    {"llama-2-13b", 13'015'864'320},      {"llama-2-70b", 68'976'648'192},
    {"llama-3-8b", 8'030'261'248},        {"llama-3-70b", 70'553'706'496},
    {"llama-3.2-1b", 1'235'814'400},      {"llama-3.2-3b", 3'212'749'824},
    {"llama-3.1-8b", 8'030'261'248},      {"llama-3.1-70b", 70'553'706'496},
    {"llama-3.1-405b", 405'853'388'800},  {"mistral-7b", 7'248'023'552},
    {"mistral-nemo-12b", 12'247'782'400}, {"qwen2.5-0.5b", 494'032'768},
    {"qwen2.5-1.5b", 1'543'714'304},      {"qwen2.5-7b", 7'615'616'512},
    {"qwen2.5-72b", 72'706'203'648},      {"qwen3-0.6b", 596'049'920},
    {"qwen3-4b", 4'022'468'096},          {"qwen3-8b", 8'190'735'360},
    {"qwen3-14b", 14'768'307'200},        {"qwen3-32b", 32'762'123'264},
    {"phi-3-mini", 3'821'079'552},        {"phi-4", 14'659'507'200},
    {"smollm2-135m", 134'515'008},        {"smollm2-1.7b", 1'711'376'384},
};

TEST(Published, ParameterCountsAreThoseOfTheCheckpoints) {
  for (const Known& known : kKnown) {
    const auto config = published_model(known.name);
    ASSERT_TRUE(config) << known.name;
    EXPECT_EQ(parameter_count(decoder_layout(*config)), known.parameters) << known.name;
  }
}

TEST(Published, EveryNameIsCheckedAbove) {
  EXPECT_EQ(published_names(), join(kKnown, ", ", &Known::name));
  EXPECT_FALSE(published_model("llama-2"));
}

}  // namespace
}  // namespace dmc::model
