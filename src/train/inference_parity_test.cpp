// What inference computes, on packed weights and kernels alone, against the models that training
// runs on.
#include "base/temp_folder.h"
#include "runtime/decoder_runner.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/rng.h"
#include "eval/score.h"
#include "model/rope_frequencies.h"
#include "nn/adapter.h"
#include "nn/dense_attention.h"
#include "nn/tiny_models.h"

namespace dmc::runtime {
namespace {

constexpr int64_t kVocabulary = 50, kContext = 128;

model::ModelConfig tiny_config(int64_t window) {
  model::ModelConfig config = nn::tiny_configs().front();
  config.dmc = model::DmcConfig{};
  config.dmc->window = window;
  config.dmc->decision_offset = 0.001;  // random weights: about half of the tokens merge
  return config;
}

// The same weights for inference, by way of a model directory.
std::shared_ptr<const Model> packed(const nn::Decoder& model, DType type = DType::kF32) {
  const TempFolder folder;
  model.save(folder.path(), {at::kFloat});
  return load_model(folder.path(), type);
}

std::shared_ptr<const Model> tiny_model(int64_t window) {
  return packed(nn::Decoder::create(tiny_config(window), 5));
}

std::vector<int32_t> random_tokens(size_t count) {
  Rng rng(17);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng.below(kVocabulary));
  return tokens;
}

// The decisions of `config`: taken by `source`, about half of them to merge (to drop).
model::ModelConfig deciding(model::ModelConfig config, const std::string& method,
                            const std::string& source) {
  config.dmc = tiny_config(12).dmc;
  config.dmc->method = method;
  config.dmc->decision_source = source;
  return config;
}

// Logits of the last token, from a pass over whole sequences.
std::vector<float> trained_logits(const nn::Decoder& model, nn::AttentionStrategy& attention,
                                  const std::vector<int32_t>& tokens) {
  const at::NoGradGuard no_grad;
  const at::Tensor ids = at::tensor(std::vector<int64_t>(tokens.begin(), tokens.end()));
  const at::Tensor last = model.logits(model.hidden(ids.unsqueeze(0), attention))[0][-1];
  return {last.const_data_ptr<float>(), last.const_data_ptr<float>() + last.numel()};
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = a.size() == b.size() ? 0.0 : INFINITY;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max<double>(largest, std::abs(a[i] - b[i]));
  return largest;
}

TEST(DecoderRunner, OnePassChunkedAndStepwisePrefillAgree) {
  const std::vector<int32_t> tokens = random_tokens(100);
  for (int64_t window : {0, 1, 12}) {
    const auto model = tiny_model(window);
    DecoderRunner one_pass(model, {.chunk = 1000}), chunked(model, {.chunk = 7});
    const auto a = one_pass.add_sequence(), b = chunked.add_sequence();
    const auto stepwise = one_pass.add_sequence();
    const std::vector<float> expected = engine::prefill(one_pass, a, tokens);
    EXPECT_LT(largest_difference(engine::prefill(chunked, b, tokens), expected), 1e-4);
    std::vector<float> logits;
    for (int32_t token : tokens) {
      logits = engine::decode(one_pass, std::span(&stepwise, 1), std::span(&token, 1));
    }
    EXPECT_LT(largest_difference(logits, expected), 1e-4);
    const int64_t slots = one_pass.cache().slots(a);
    EXPECT_EQ(chunked.cache().slots(b), slots);
    EXPECT_EQ(one_pass.cache().slots(stepwise), slots);
    EXPECT_LT(slots, 100 * 6 * 3 / 4) << "the test needs a model that merges";
  }
}

// Weights and slots in fewer bits change the result by their rounding, not more.
TEST(DecoderRunner, LowerPrecisionStaysClose) {
  const nn::Decoder model = nn::random_model(tiny_config(12));
  const std::vector<int32_t> tokens = random_tokens(80);
  const auto last_logits = [&](DType weights, DType kv) {
    DecoderRunner runner(packed(model, weights), {.compression = {.policy = "dense"}, .kv = kv});
    return engine::prefill(runner, runner.add_sequence(), tokens);
  };
  const std::vector<float> exact = last_logits(DType::kF32, DType::kF32);
  const auto error = [&](DType weights, DType kv) {
    const std::vector<float> rounded = last_logits(weights, kv);
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < exact.size(); ++i) {
      difference += std::pow(rounded[i] - exact[i], 2.0);
      norm += std::pow(exact[i], 2.0);
    }
    return std::sqrt(difference / norm);
  };
  // Half a unit in the last place of each format, and some room for it to spread over layers.
  EXPECT_LT(error(DType::kF32, DType::kF16), 8 * 0x1p-11);
  EXPECT_LT(error(DType::kF32, DType::kBF16), 8 * 0x1p-8);
  EXPECT_LT(error(DType::kF32, DType::kI8), 8 / 127.0);
  EXPECT_LT(error(DType::kF32, DType::kF8E4M3), 8 * 0x1p-4);
  EXPECT_GT(error(DType::kF32, DType::kF8E4M3), 0.0);
  EXPECT_LT(error(DType::kF16, DType::kF32), 8 * 0x1p-11);
  EXPECT_LT(error(DType::kBF16, DType::kF32), 8 * 0x1p-8);
  EXPECT_LT(error(DType::kI8, DType::kF32), 8 / 127.0);
  EXPECT_GT(error(DType::kF32, DType::kI8), 0.0);
}

TEST(DecoderRunner, ForcedDecisionsReachTheRatio) {
  const nn::Decoder model = nn::random_model(nn::tiny_configs().front());
  for (double cr : {1.5, 4.0, 8.0}) {
    DecoderRunner runner(packed(model), {.compression = {.forced_cr = cr}, .max_positions = 4096});
    const auto sequence = runner.add_sequence();
    std::vector<int32_t> tokens;
    while (tokens.size() < 4000) tokens.push_back(static_cast<int32_t>(tokens.size() % 50));
    engine::prefill(runner, sequence, tokens);
    EXPECT_NEAR(runner.compression_ratio(sequence), cr, 0.15 * cr);
  }
}

TEST(DecoderRunner, DensePolicyKeepsEveryToken) {
  DecoderRunner runner(tiny_model(12), {.compression = {.policy = "dense"}});
  const auto sequence = runner.add_sequence();
  engine::prefill(runner, sequence, random_tokens(60));
  EXPECT_EQ(runner.cache().slots(sequence), 60 * 3 * 2);
}

// A text's next token does not depend on what else is decoded beside it.
TEST(DecoderRunner, BatchesGiveWhatSingleSequencesGive) {
  DecoderRunner runner(tiny_model(12), {});
  const std::vector<int32_t> tokens = random_tokens(90);
  std::vector<engine::SequenceId> ids;
  for (size_t n : {10, 33, 61}) {
    ids.push_back(runner.add_sequence());
    engine::prefill(runner, ids.back(), std::span(tokens).first(n));
  }
  std::vector<float> alone;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto copy = runner.fork(ids[i]);
    const auto logits = engine::decode(runner, std::span(&copy, 1), std::span(&tokens[80 + i], 1));
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  EXPECT_LT(
      largest_difference(engine::decode(runner, ids, std::span(tokens).subspan(80, 3)), alone),
      1e-5);
}

TEST(DecoderRunner, EachFamilyUncompressedIsItsWholeSequenceModel) {
  const std::vector<int32_t> tokens = random_tokens(60);
  for (const model::ModelConfig& config : nn::tiny_configs()) {
    const nn::Decoder model = nn::random_model(config);
    nn::DenseAttention dense(60, model::rope_frequencies(config));
    const std::vector<float> expected = trained_logits(model, dense, tokens);
    DecoderRunner runner(packed(model), {.chunk = 25});
    const auto sequence = runner.add_sequence();
    engine::prefill(runner, sequence, std::span(tokens).first(59));
    const std::vector<float> logits =
        engine::decode(runner, std::span(&sequence, 1), std::span(&tokens[59], 1));
    EXPECT_LT(largest_difference(logits, expected), 1e-4) << config.model_type;
  }
}

// Whatever an adapter says, without its decisions the model is the one it was made for.
TEST(DecoderRunner, WithoutItsDecisionsAnAdapterChangesNoBit) {
  const std::vector<int32_t> tokens = random_tokens(60);
  for (const model::ModelConfig& config : nn::tiny_configs()) {
    const nn::Decoder adapted = nn::random_model(deciding(config, "dmc", "adapter"));
    const auto model = packed(adapted);
    DecoderRunner base(packed(nn::without_adapter(adapted)), {});
    DecoderRunner off(model, {.compression = {.policy = "dense"}}), on(model, {});
    const auto a = base.add_sequence(), b = off.add_sequence(), c = on.add_sequence();
    EXPECT_EQ(engine::prefill_logits(base, a, tokens), engine::prefill_logits(off, b, tokens))
        << config.model_type;
    EXPECT_EQ(engine::decode(base, std::span(&a, 1), std::span(tokens).first(1)),
              engine::decode(off, std::span(&b, 1), std::span(tokens).first(1)));
    engine::prefill(on, c, tokens);
    EXPECT_GT(on.compression_ratio(c), 1.1) << "the test needs a model that merges";
  }
}

void expect_one_pass_and_steps_to_agree(const model::ModelConfig& config) {
  const std::string what =
      config.model_type + " " + config.dmc->method + " " + config.dmc->decision_source;
  const std::vector<int32_t> tokens = random_tokens(60);
  DecoderRunner runner(packed(nn::random_model(config)), {});
  const auto one_pass = runner.add_sequence(), stepwise = runner.add_sequence();
  const std::vector<float> expected = engine::prefill(runner, one_pass, tokens);
  std::vector<float> logits;
  for (int32_t token : tokens) {
    logits = engine::decode(runner, std::span(&stepwise, 1), std::span(&token, 1));
  }
  EXPECT_LT(largest_difference(logits, expected), 1e-4) << what;
  const int64_t slots = runner.cache().slots(one_pass);
  EXPECT_EQ(runner.cache().slots(stepwise), slots) << what;
  EXPECT_LT(slots, 60 * 3 * config.num_kv_heads * 9 / 10) << what << " must decide something";
}

TEST(DecoderRunner, EachFamilyCompressesTheSameInOnePassAndInSteps) {
  for (const char* method : {"dmc", "dms"}) {
    for (const char* source : {"neuron", "adapter"}) {
      for (const model::ModelConfig& config : nn::tiny_configs()) {
        expect_one_pass_and_steps_to_agree(deciding(config, method, source));
      }
    }
  }
}

TEST(DecoderRunner, LearnedPositionsCannotBeExceeded) {
  const std::vector<model::ModelConfig> configs = nn::tiny_configs();
  const auto gpt2 = std::ranges::find(configs, "gpt2", &model::ModelConfig::model_type);
  const auto model = packed(nn::Decoder::create(*gpt2, 1));
  EXPECT_THROW(DecoderRunner(model, {.max_positions = kContext + 1}), Error);
}

// A text scored behind a forked context equals the same text scored in one go, compressed.
TEST(DecoderRunner, ForkedContinuationsScoreAsWholeTexts) {
  const std::vector<int32_t> tokens = random_tokens(100);
  constexpr size_t kVocab = kVocabulary;
  for (int64_t window : {0, 12}) {
    DecoderRunner runner(tiny_model(window), {.chunk = 33});
    const auto whole = runner.add_sequence(), context = runner.add_sequence();
    const std::vector<float> expected = engine::prefill_logits(runner, whole, tokens);
    EXPECT_EQ(expected.size(), 100 * kVocab);
    for (size_t cut : {1, 40, 70}) {
      const auto done = static_cast<size_t>(runner.cache().length(context));
      const auto next =
          engine::prefill(runner, context, std::span(tokens).subspan(done, cut - done));
      const auto branch = runner.fork(context);
      const auto rest = engine::prefill_logits(runner, branch, std::span(tokens).subspan(cut));
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

TEST(DecoderRunner, RefusesWhatItCannotDo) {
  model::ModelConfig config = tiny_config(12);
  config.dmc.reset();
  const auto dense = packed(nn::Decoder::create(config, 1));
  EXPECT_THROW(DecoderRunner(dense, {.compression = {.policy = "dmc"}}), Error);
  EXPECT_THROW(DecoderRunner(dense, {.compression = {.policy = "no-such-policy"}}), Error);
  DecoderRunner runner(dense, {});
  const auto sequence = runner.add_sequence();
  EXPECT_THROW(engine::prefill(runner, sequence, random_tokens(kContext + 1)), Error);
}

TEST(Score, CountsWhatItSays) {
  DecoderRunner runner(tiny_model(12), {});
  const text::EvalWindows windows{{random_tokens(64), random_tokens(64)}, {100, 120}};
  const eval::Score result = eval::score(runner, windows, [](int64_t) {});
  EXPECT_EQ(result.tokens, 128);
  EXPECT_NEAR(result.compression_ratio, 128.0 / result.slots, 1e-9);
  EXPECT_GT(result.compression_ratio, 1.2);
  EXPECT_NEAR(result.bits_per_byte, result.loss * 126 / std::log(2.0) / 220, 1e-9);
  EXPECT_NEAR(result.loss, std::log(50.0), 0.2) << "an untrained model knows nothing";
  EXPECT_EQ(result.cr_by_head.size(), 3u);
}

}  // namespace
}  // namespace dmc::runtime
