#include "dist/place.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"

namespace dmc::dist {
namespace {

using Variables = std::map<std::string, std::string>;

std::optional<Place> place_of(const Variables& variables) {
  return place_from([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

const Variables kGood = {{"RANK", "5"},
                         {"WORLD_SIZE", "8"},
                         {"LOCAL_RANK", "1"},
                         {"LOCAL_WORLD_SIZE", "4"},
                         {"MASTER_ADDR", "node0"},
                         {"MASTER_PORT", "29500"}};

TEST(Place, IsWhatALauncherSays) {
  const std::optional<Place> place = place_of(kGood);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->rank, 5);
  EXPECT_EQ(place->size, 8);
  EXPECT_EQ(place->local_rank, 1);
  EXPECT_EQ(place->local_size, 4);
  EXPECT_EQ(place->host, "node0");
  EXPECT_EQ(place->port, 29500);
  EXPECT_FALSE(place->serves_store);
}

TEST(Place, IsNotSaidWithoutALauncher) {
  EXPECT_FALSE(place_of({}).has_value());
  EXPECT_FALSE(place_of({{"MASTER_ADDR", "left over"}}).has_value());
}

TEST(Place, ProcessesOfOneMachineNeedNoLocalRanks) {
  Variables variables = kGood;
  variables.erase("LOCAL_RANK");
  variables.erase("LOCAL_WORLD_SIZE");
  const std::optional<Place> place = place_of(variables);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->local_rank, 5);
  EXPECT_EQ(place->local_size, 8);
}

TEST(Place, TheFirstServesTheStoreUnlessTheLauncherDoes) {
  Variables variables = kGood;
  variables["RANK"] = variables["LOCAL_RANK"] = "0";
  EXPECT_TRUE(place_of(variables)->serves_store);
  variables["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  variables["TORCHELASTIC_RESTART_COUNT"] = "2";
  EXPECT_FALSE(place_of(variables)->serves_store);
  EXPECT_EQ(place_of(variables)->attempt, "2");
}

struct Bad {
  const char *variable, *value;  // null: not set
};

class BadPlace : public testing::TestWithParam<Bad> {};

TEST_P(BadPlace, IsRefusedInASentenceThatNamesTheVariable) {
  const auto [variable, value] = GetParam();
  Variables variables = kGood;
  variables.erase(variable);
  if (value != nullptr) variables[variable] = value;
  try {
    place_of(variables);
    FAIL() << "it was taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string(error.what()).rfind(std::string(variable) + ": ", 0), 0u) << error.what();
    EXPECT_NE(std::string(error.what()).find(value == nullptr ? "not set" : value),
              std::string::npos);
  }
}

INSTANTIATE_TEST_SUITE_P(All, BadPlace,
                         testing::Values(Bad{"RANK", nullptr}, Bad{"WORLD_SIZE", nullptr},
                                         Bad{"MASTER_ADDR", nullptr}, Bad{"MASTER_PORT", nullptr},
                                         Bad{"RANK", "8"}, Bad{"RANK", "-1"}, Bad{"RANK", "one"},
                                         Bad{"RANK", "1x"}, Bad{"RANK", ""}, Bad{"WORLD_SIZE", "0"},
                                         Bad{"WORLD_SIZE", "99999999999"}, Bad{"LOCAL_RANK", "4"},
                                         Bad{"LOCAL_WORLD_SIZE", "9"}, Bad{"MASTER_PORT", "70000"},
                                         Bad{"MASTER_PORT", "http"}));

}  // namespace
}  // namespace dmc::dist
