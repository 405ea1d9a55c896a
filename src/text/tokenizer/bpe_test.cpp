#include "text/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include "base/rng.h"

namespace dmc::text {
namespace {

// The rule itself: merge the pair of the smallest rank, the leftmost of them, until none is left.
std::vector<int32_t> merged_slowly(const MergeTable& merges, std::vector<int32_t> symbols) {
  while (true) {
    const MergeTable::Merge* best = nullptr;
    size_t where = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto* merge = merges.find(MergeTable::pair(symbols[i], symbols[i + 1]));
      if (merge && (!best || merge->rank < best->rank)) best = merge, where = i;
    }
    if (!best) return symbols;
    symbols[where] = best->result;
    symbols.erase(symbols.begin() + static_cast<long>(where) + 1);
  }
}

TEST(Bpe, MergesAsTheRuleSays) {
  Rng rng(1);
  for (int round = 0; round < 500; ++round) {
    MergeTable merges;
    const int32_t letters = 2 + static_cast<int32_t>(rng.below(3));
    int32_t tokens = letters;
    for (int32_t rank = 0; rank < 20; ++rank) {
      const auto any = [&] {
        return static_cast<int32_t>(rng.below(static_cast<uint64_t>(tokens)));
      };
      const int32_t left = any(), right = any();
      merges.add(left, right, {static_cast<int32_t>(rng.below(20)), tokens});
      ++tokens;
    }
    std::vector<int32_t> symbols(rng.below(40));
    for (int32_t& symbol : symbols) {
      symbol = static_cast<int32_t>(rng.below(static_cast<uint64_t>(letters)));
    }
    std::vector<int32_t> fast = symbols;
    apply_merges(merges, &fast);
    EXPECT_EQ(fast, merged_slowly(merges, symbols)) << "round " << round;
  }
}

TEST(Bpe, VocabularyImpliesEveryMergeThatMakesAToken) {
  Vocabulary vocabulary;
  int32_t id = 0;
  for (const char* text : {"a", "b", "ab", "ba", "aba"}) vocabulary.put(id++, text);
  const MergeTable merges = merges_of_vocabulary(
      vocabulary, [](int32_t) { return true; }, [](int32_t token) { return token; });
  ASSERT_NE(merges.find(MergeTable::pair(2, 0)), nullptr);  // ab + a
  EXPECT_EQ(merges.find(MergeTable::pair(2, 0))->result, 4);
  ASSERT_NE(merges.find(MergeTable::pair(0, 3)), nullptr);  // a + ba
  EXPECT_EQ(merges.find(MergeTable::pair(0, 3))->rank, 4);
  EXPECT_EQ(merges.find(MergeTable::pair(0, 0)), nullptr);
}

TEST(Bpe, ByteTokensAreReadStrictly) {
  EXPECT_EQ(parse_byte_token("<0x0A>"), '\n');
  EXPECT_EQ(parse_byte_token("<0xFF>"), '\xff');
  for (const char* wrong : {"<0x-1>", "<0xA>", "<0x0A", "<0x0a>", "<0x100>", "0x0A", ""}) {
    EXPECT_FALSE(parse_byte_token(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace dmc::text
