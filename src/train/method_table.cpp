#include "base/error.h"
#include "base/human.h"
#include "base/named.h"
#include "policy/policy.h"
#include "train/method.h"

namespace dmc::train {
namespace {

constexpr Method kMethods[] = {
    {.name = "dmc",
     .summary = "a token merges into the newest slot",
     .usual_window = 12,
     .largest_window = 1024,
     .attention = dmc_attention,
     .title = "Dynamic Memory Compression, arXiv 2403.09636",
     .decides = "it opens a new slot of the cache or merges into the newest one",
     .window = "a slot averages at most (0: no limit)"},
    {.name = "dms",
     .summary = "a token is dropped once it leaves the window",
     .usual_window = 64,
     .largest_window = int64_t{1} << 20,
     .attention = dms_attention,
     .title = "Dynamic Memory Sparsification, arXiv 2506.05345",
     .decides = "the token before it stays in the cache or goes once it leaves the window",
     .window = "queries that still see a token that is to go"},
};

}  // namespace

std::span<const Method> methods() { return kMethods; }

const Method* find_method(std::string_view name) { return find_named(kMethods, name); }

void require_window(const TrainOptions& options) {
  const Method* const method = find_method(options.retrofit.method);
  DMC_CHECK(method != nullptr);
  const int64_t window = options.retrofit.window;
  const auto refuse = [&](const std::string& why) {
    throw invalid_argument("window", std::to_string(window) + " " + why);
  };
  if (window > method->largest_window) {
    refuse("is more than method " + std::string(method->name) + " takes, " +
           std::to_string(method->largest_window));
  }
  // The last query must be more than a window behind the first token.
  if (policy::find_policy(method->name)->late && window >= options.length - 1) {
    refuse("leaves nothing to drop in sequences of " + std::to_string(options.length) +
           " tokens; give a smaller one or a larger --length");
  }
  const double least = static_cast<double>(window + 1),
               length = static_cast<double>(options.length);
  if (policy::find_policy(method->name)->late && least * options.retrofit.target_cr > length) {
    refuse("keeps so many of " + std::to_string(options.length) + " tokens that a ratio of " +
           fixed(options.retrofit.target_cr, 2) +
           " cannot be reached; give a smaller one, a larger --length or a smaller --cr");
  }
}

}  // namespace dmc::train
