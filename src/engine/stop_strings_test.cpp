#include "engine/stop_strings.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace dmc::engine {
namespace {

struct Cut {
  std::string text, stop;  // stop: empty if none is there
  bool operator==(const Cut&) const = default;
};

// The slow twin looks at the whole text: the first end of any stop string, of several the longest.
Cut whole(const std::string& text, const std::vector<std::string>& stops, bool keep) {
  for (size_t end = 0; end <= text.size(); ++end) {
    std::string best;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop) && stop.size() > best.size()) best = stop;
    }
    if (!best.empty()) return {text.substr(0, keep ? end : end - best.size()), best};
  }
  return {text, ""};
}

std::string random_text(Rng& rng, size_t most) {
  std::string text;
  for (size_t n = rng.below(most); n > 0; --n) text += static_cast<char>('a' + rng.below(3));
  return text;
}

TEST(StopStrings, CutATextInPiecesAsTheyCutItWhole) {
  Rng rng(3);
  for (int round = 0; round < 20000; ++round) {
    const std::string text = random_text(rng, 30);
    std::vector<std::string> stops;
    for (size_t n = rng.below(4); n > 0; --n) stops.push_back(random_text(rng, 5) + "b");
    const bool keep = rng.below(2) == 0;
    StopStrings streamed(stops, keep);
    std::string shown;
    for (size_t at = 0; at < text.size() && !streamed.found();) {
      const size_t size = 1 + rng.below(6);
      shown += streamed.push(text.substr(at, size));
      at += size;
      ASSERT_TRUE(text.starts_with(shown));
    }
    if (!streamed.found()) shown += streamed.finish();
    const Cut expected = whole(text, stops, keep);
    ASSERT_EQ((Cut{shown, streamed.found().value_or("")}), expected) << text;
  }
}

TEST(StopStrings, HoldBackOnlyWhatMayBecomeOne) {
  StopStrings stops({"\nUser:", "###"});
  EXPECT_EQ(stops.push("Hello"), "Hello");
  EXPECT_EQ(stops.push(" you\nUs"), " you");
  EXPECT_EQ(stops.push("A is #"), "\nUsA is ");
  EXPECT_EQ(stops.push("#1"), "##1");
  EXPECT_EQ(stops.finish(), "");
}

}  // namespace
}  // namespace dmc::engine
