#include "runtime/policy_choice.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace dmc::runtime {
namespace {

model::ModelConfig retrofitted(const std::string& method) {
  model::ModelConfig config;
  config.dmc = model::DmcConfig{};
  config.dmc->method = method;
  return config;
}

std::string complaint(const model::ModelConfig& config, const PolicyOptions& options) {
  try {
    choose_policy(config, options);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return command_line_sentence(error);
  }
  return "";
}

TEST(PolicyChoice, DefaultIsWhatTheModelWasTrainedFor) {
  EXPECT_EQ(choose_policy({}, {}).policy.name, "dense");
  EXPECT_EQ(choose_policy(retrofitted("dmc"), {}).policy.name, "dmc");
  EXPECT_EQ(choose_policy(retrofitted("dms"), {}).policy.name, "dms");
  EXPECT_EQ(choose_policy(retrofitted("dmc"), {.forced_cr = 2.0}).policy.name, "forced");
}

TEST(PolicyChoice, ARatioReachesThePolicyInItsOwnWay) {
  const PolicyChoice budget = choose_policy({}, {.policy = "h2o", .cr = 4.0});
  EXPECT_EQ(budget.budget, 0);
  EXPECT_EQ(budget.budget_cr, 4.0);
  EXPECT_EQ(choose_policy(retrofitted("dmc"), {.cr = 4.0}).knobs.held_cr, 4.0);
  EXPECT_EQ(choose_policy({}, {.policy = "forced", .cr = 4.0}).knobs.forced_cr, 4.0);
  EXPECT_EQ(choose_policy({}, {.policy = "tova", .budget = 64}).budget, 64);
}

// Each complaint names the flag and what to do.
TEST(PolicyChoice, RefusesWhatAPolicyHasNoUseFor) {
  const struct {
    model::ModelConfig config;
    PolicyOptions options;
    const char* says;
  } kCases[] = {
      {{}, {.policy = "no-such-policy"}, "is not one of dense, dmc, dms"},
      {{}, {.policy = "dmc"}, "dmc retrofit"},
      {retrofitted("dmc"), {.policy = "dms"}, "was retrofitted for dmc"},
      {{}, {.policy = "window"}, "give a budget"},
      {{}, {.policy = "snapkv", .budget = 32}, "needs 33 slots or more, found 32"},
      {{}, {.policy = "h2o", .budget = 64, .cr = 2.0}, "give one of them"},
      {retrofitted("dmc"), {.budget = 64}, "--budget: policy dmc has none"},
      {{}, {.policy = "dense", .cr = 2.0}, "--cr: the policy dense"},
      {{}, {.policy = "h2o", .budget = 64, .decision_bias = 1.0}, "--decision-bias"},
      {{}, {.policy = "h2o", .budget = 64, .mass_term = true}, "--mass-term: policy h2o merges no"},
  };
  for (const auto& c : kCases) {
    EXPECT_NE(complaint(c.config, c.options).find(c.says), std::string::npos)
        << c.options.policy << ": " << complaint(c.config, c.options);
  }
}

}  // namespace
}  // namespace dmc::runtime
