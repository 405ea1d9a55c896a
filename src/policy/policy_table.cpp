#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>
#include <numeric>

#include "base/named.h"
#include "policy/forced.h"
#include "policy/policy.h"

namespace dmc::policy {
namespace {

// The baseline: every token keeps its own slot.
Verdict dense(const DecisionInput&) { return {Decision::kAppend, 1.0f}; }

Decision append_unless(bool decided, Decision otherwise) {
  return decided ? otherwise : Decision::kAppend;
}

bool decided(const DecisionInput& in) {
  return decides_to_hide(in.constants, in.decision, in.bias);
}

Verdict merging(const DecisionInput& in) {
  return {append_unless(decided(in), Decision::kMerge), importance(in.constants, in.importance)};
}

Verdict dropping(const DecisionInput& in) {
  return {append_unless(decided(in), Decision::kDropPrevious), 1.0f};
}

Verdict forced(const DecisionInput& in) {
  const double opens = forced_opening_share(in.stream, in.forced_cr);
  return {append_unless(forced_merge(opens, in.stream, in.position), Decision::kMerge), 1.0f};
}

// SnapKV: what the prompt's last queries attended to.
std::vector<size_t> keep_most_observed(std::span<const double> attention, size_t keep) {
  const int64_t slots = std::ssize(attention);
  std::vector<double> pooled;
  for (int64_t i = 0; i < slots; ++i) {
    pooled.push_back(with_neighbours(attention.data(), slots, i));
  }
  std::vector<size_t> order(attention.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, std::greater<>(), [&](size_t i) { return pooled[i]; });
  order.resize(std::min(keep, order.size()));
  std::ranges::sort(order);
  return order;
}

constexpr int64_t kObservingTokens = 32;

constexpr Policy kPolicies[] = {
    {.name = "dense", .summary = "keep every token in a slot of its own", .decide = dense},
    {.name = "dmc",
     .summary = "merge tokens into the newest slot where the model decides so",
     .needs_dmc_config = true,
     .decide = merging,
     .carry = Carry::kImportance},
    {.name = "dms",
     .summary = "drop the tokens the model decides against once they leave its window",
     .needs_dmc_config = true,
     .decide = dropping,
     .delayed = true},
    {.name = "dmc-delayed",
     .summary = "merge them into the next token's slot once they leave its window",
     .needs_dmc_config = true,
     .decide = merging,
     .delayed = true,
     .carry = Carry::kBesideNewest},
    {.name = "window",
     .summary = "keep the first 4 and the newest tokens of --budget (StreamingLLM)",
     .decide = dense,
     .evict = Eviction::kOutsideWindow,
     .least_budget = kSinks + 1},
    {.name = "tova",
     .summary = "drop what the newest query attends to least, beyond --budget",
     .decide = dense,
     .evict = Eviction::kLeastAttended,
     .layer_wide = true,
     .least_budget = 2},
    {.name = "h2o",
     .summary = "keep the newest and the most attended tokens, half of --budget each",
     .decide = dense,
     .evict = Eviction::kLightest,
     .least_budget = 2},
    {.name = "snapkv",
     .summary = "when a prompt ends, keep what its last 32 tokens attended to, and them: --budget",
     .decide = dense,
     .keep_of_prompt = keep_most_observed,
     .observes = kObservingTokens,
     .least_budget = kObservingTokens + 1},
    {.name = "forced",
     .summary = "merge at random to reach --force-cr, to measure speed",
     .decide = forced},
};

}  // namespace

// Merging at random lets any model show the speed of a ratio. Heads differ as those of a trained
// model do: log-uniformly by a factor of up to 4, spread evenly over the streams.
double forced_opening_share(int64_t stream, double cr) {
  constexpr double kGoldenRatio = 0.6180339887498949;
  const double spread = std::clamp(std::log2(cr), 0.0, 1.0);
  const double place = std::fmod(static_cast<double>(stream + 1) * kGoldenRatio, 1.0);
  const double factor = std::exp2(spread * (1.0 - 2.0 * place));
  const double mean = spread > 0.0
                          ? std::sinh(spread * std::numbers::ln2) / (spread * std::numbers::ln2)
                          : 1.0;  // of the factor, over all places
  return std::min(1.0, factor / mean / cr);
}

std::span<const Policy> policies() { return kPolicies; }

const Policy* find_policy(std::string_view name) { return find_named(kPolicies, name); }

}  // namespace dmc::policy
