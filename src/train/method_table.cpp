#include "base/error.h"
#include "base/human.h"
#include "base/named.h"
#include "train/method.h"

namespace dmc::train {
namespace {

constexpr int64_t kMostWindow = 1024, kMostDelay = int64_t{1} << 20;

constexpr std::string_view kWindowCounts = "a slot averages at most (0: no limit)";

constexpr Method kMethods[] = {
    {.name = "dmc",
     .summary = "a token merges into the newest slot",
     .window = {12, kMostWindow},
     .delay = {0, 0},
     .attention = compressed_attention,
     .title = "Dynamic Memory Compression, arXiv 2403.09636",
     .decides = "it opens a new slot of the cache or merges into the newest one",
     .window_counts = kWindowCounts},
    {.name = "dms",
     .summary = "a token is dropped once it leaves the window",
     .window = {1, 1},
     .delay = {64, kMostDelay},
     .attention = compressed_attention,
     .title = "Dynamic Memory Sparsification, arXiv 2506.05345",
     .decides = "the token before it stays in the cache or goes once it leaves the window",
     .delay_counts = "queries that still see a token that is to go"},
    {.name = "dmc-delayed",
     .summary = "a token merges into the next one's slot once it leaves the window",
     .window = {12, kMostWindow},
     .delay = {64, kMostDelay},
     .importance_offset = -4.0,
     .attention = compressed_attention,
     .title = "Dynamic Memory Compression, arXiv 2403.09636, with delayed merging",
     .decides = "the token before it keeps a slot of its own or merges into its slot, once both "
                "have left the window",
     .window_counts = kWindowCounts,
     .delay_counts = "newest tokens that stay as they are"},
};

// Neither fewer nor more than the method takes.
void require_size(const Method& method, const char* field, const Method::Size& size,
                  int64_t given) {
  const auto refuse = [&](const std::string& why) {
    throw invalid_argument(field, std::to_string(given) + " " + why);
  };
  const std::string name(method.name);
  if (!size.can_differ() && given != size.usual) {
    refuse("is nothing that method " + name + " can be given; leave it out");
  }
  if (given > size.largest) {
    refuse("is more than method " + name + " takes, " + std::to_string(size.largest));
  }
}

}  // namespace

std::span<const Method> methods() { return kMethods; }

const Method* find_method(std::string_view name) { return find_named(kMethods, name); }

void require_windows(const TrainOptions& options) {
  const Method* const method = find_method(options.retrofit.method);
  DMC_CHECK(method != nullptr);
  const int64_t delay = options.retrofit.delay;
  require_size(*method, "window", method->window, options.retrofit.window);
  require_size(*method, "delay", method->delay, delay);
  // The last query must be more than a window behind the first token.
  if (delay > 0 && delay >= options.length - 1) {
    throw invalid_argument("delay", std::to_string(delay) +
                                        " leaves nothing to compress in sequences of " +
                                        std::to_string(options.length) +
                                        " tokens; give a smaller one or a larger --length");
  }
  const double least = static_cast<double>(delay + 1), length = static_cast<double>(options.length);
  if (delay > 0 && least * options.retrofit.target_cr > length) {
    throw invalid_argument(
        "delay", std::to_string(delay) + " keeps so many of " + std::to_string(options.length) +
                     " tokens that a ratio of " + fixed(options.retrofit.target_cr, 2) +
                     " cannot be reached; give a smaller one, a larger --length or a smaller --cr");
  }
}

}  // namespace dmc::train
