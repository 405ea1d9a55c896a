#include "runtime/llama_runner.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/rng.h"
#include "runtime/score.h"

namespace dmc::runtime {
namespace {

constexpr int64_t kVocabulary = 50, kContext = 128;

io::ModelConfig tiny_config(int64_t window) {
  io::ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.model_type = "llama";
  config.vocab_size = kVocabulary;
  config.hidden_size = 48;
  config.intermediate_size = 64;
  config.num_layers = 3;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.max_positions = kContext;
  config.dmc = io::DmcConfig{};
  config.dmc->window = window;
  config.dmc->decision_offset = 0.001;  // random weights: about half of the tokens merge
  return config;
}

std::shared_ptr<const models::Llama> tiny_model(int64_t window) {
  return std::make_shared<models::Llama>(models::Llama::create(tiny_config(window), 5));
}

std::vector<int32_t> random_tokens(size_t count) {
  Rng rng(17);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(kVocabulary));
  return tokens;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = a.size() == b.size() ? 0.0 : INFINITY;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max<double>(largest, std::abs(a[i] - b[i]));
  return largest;
}

TEST(LlamaRunner, OnePassChunkedAndStepwisePrefillAgree) {
  const std::vector<int32_t> tokens = random_tokens(100);
  for (int64_t window : {0, 1, 12}) {
    const auto model = tiny_model(window);
    LlamaRunner one_pass(model, {.chunk = 1000}), chunked(model, {.chunk = 7});
    const auto a = one_pass.add_sequence(), b = chunked.add_sequence();
    const auto stepwise = one_pass.add_sequence();
    const std::vector<float> expected = one_pass.prefill(a, tokens);
    EXPECT_LT(largest_difference(chunked.prefill(b, tokens), expected), 1e-4);
    std::vector<float> logits;
    for (int32_t token : tokens) {
      logits = one_pass.decode(std::span(&stepwise, 1), std::span(&token, 1));
    }
    EXPECT_LT(largest_difference(logits, expected), 1e-4);
    const int64_t slots = one_pass.cache().slots(a);
    EXPECT_EQ(chunked.cache().slots(b), slots);
    EXPECT_EQ(one_pass.cache().slots(stepwise), slots);
    EXPECT_LT(slots, 100 * 6 * 3 / 4) << "the test needs a model that merges";
  }
}

TEST(LlamaRunner, DensePolicyKeepsEveryToken) {
  LlamaRunner runner(tiny_model(12), {.policy = "dense"});
  const auto sequence = runner.add_sequence();
  runner.prefill(sequence, random_tokens(60));
  EXPECT_EQ(runner.cache().slots(sequence), 60 * 3 * 2);
}

// A text's next token does not depend on what else is decoded beside it.
TEST(LlamaRunner, BatchesGiveWhatSingleSequencesGive) {
  LlamaRunner runner(tiny_model(12), {});
  const std::vector<int32_t> tokens = random_tokens(90);
  std::vector<engine::SequenceId> ids;
  for (size_t n : {10, 33, 61}) {
    ids.push_back(runner.add_sequence());
    runner.prefill(ids.back(), std::span(tokens).first(n));
  }
  std::vector<float> alone;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto copy = runner.fork(ids[i]);
    const auto logits = runner.decode(std::span(&copy, 1), std::span(&tokens[80 + i], 1));
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  EXPECT_LT(largest_difference(runner.decode(ids, std::span(tokens).subspan(80, 3)), alone), 1e-5);
}

// A text scored behind a forked context equals the same text scored in one go, compressed.
TEST(LlamaRunner, ForkedContinuationsScoreAsWholeTexts) {
  const std::vector<int32_t> tokens = random_tokens(100);
  constexpr size_t kVocab = kVocabulary;
  for (int64_t window : {0, 12}) {
    LlamaRunner runner(tiny_model(window), {.chunk = 33});
    const auto whole = runner.add_sequence(), context = runner.add_sequence();
    const std::vector<float> expected = runner.prefill_logits(whole, tokens);
    EXPECT_EQ(expected.size(), 100 * kVocab);
    for (size_t cut : {1, 40, 70}) {
      const auto done = static_cast<size_t>(runner.cache().length(context));
      const auto next = runner.prefill(context, std::span(tokens).subspan(done, cut - done));
      const auto branch = runner.fork(context);
      const auto rest = runner.prefill_logits(branch, std::span(tokens).subspan(cut));
      EXPECT_LT(largest_difference(next, {expected.begin() + static_cast<long>((cut - 1) * kVocab),
                                          expected.begin() + static_cast<long>(cut * kVocab)}),
                1e-4);
      EXPECT_LT(largest_difference(
                    rest, {expected.begin() + static_cast<long>(cut * kVocab), expected.end()}),
                1e-4);
      EXPECT_EQ(runner.cache().slots(branch), runner.cache().slots(whole));
      EXPECT_EQ(runner.compression_ratio(branch), runner.compression_ratio(whole));
      runner.release(branch);
    }
    EXPECT_GT(runner.compression_ratio(whole), 1.2) << "the test needs a model that merges";
  }
}

TEST(LlamaRunner, RefusesWhatItCannotDo) {
  io::ModelConfig config = tiny_config(12);
  config.dmc.reset();
  const auto dense = std::make_shared<models::Llama>(models::Llama::create(config, 1));
  EXPECT_THROW(LlamaRunner(dense, {.policy = "dmc"}), Error);
  EXPECT_THROW(LlamaRunner(dense, {.policy = "no-such-policy"}), Error);
  LlamaRunner runner(dense, {});
  const auto sequence = runner.add_sequence();
  EXPECT_THROW(runner.prefill(sequence, random_tokens(kContext + 1)), Error);
}

TEST(Score, CountsWhatItSays) {
  LlamaRunner runner(tiny_model(12), {});
  const io::EvalWindows windows{{random_tokens(64), random_tokens(64)}, {100, 120}};
  const Score result = score(runner, windows, [](int64_t) {});
  EXPECT_EQ(result.tokens, 128);
  EXPECT_NEAR(result.compression_ratio, 128.0 / result.slots, 1e-9);
  EXPECT_GT(result.compression_ratio, 1.2);
  EXPECT_NEAR(result.bits_per_byte, result.loss * 126 / std::log(2.0) / 220, 1e-9);
  EXPECT_NEAR(result.loss, std::log(50.0), 0.2) << "an untrained model knows nothing";
  EXPECT_EQ(result.cr_by_head.size(), 3u);
}

}  // namespace
}  // namespace dmc::runtime
