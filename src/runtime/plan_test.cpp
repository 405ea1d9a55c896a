#include "runtime/plan.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace dmc::runtime {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

model::ModelConfig llama_2_7b() {
  model::ModelConfig config;
  config.vocab_size = 32000;
  config.hidden_size = 4096;
  config.intermediate_size = 11008;
  config.num_layers = 32;
  config.num_heads = config.num_kv_heads = 32;
  config.head_dim = 128;
  return config;
}

constexpr double kParameters = 6'738'415'616;

PlanRequest request(int64_t batch, int64_t context, double cr) {
  PlanRequest result;
  result.batch = batch;
  result.context = context;
  result.cr = cr;
  return result;
}

TEST(Plan, AKnownCache) {  // Llama 2 7B: 512 KiB a token in bf16; 8 bits and their scales: 264
  EXPECT_EQ(plan(llama_2_7b(), kParameters, request(1, 4096, 1)).token_bytes, 512 * 1024);
  for (DType type : {DType::kI8, DType::kF8E4M3}) {
    PlanRequest eight_bit = request(1, 4096, 1);
    eight_bit.slots = type;
    EXPECT_EQ(plan(llama_2_7b(), kParameters, eight_bit).token_bytes, 264 * 1024);
  }
}

TEST(Plan, TheCacheShrinksByTheRatioButForPagesAndWindow) {
  const ServingPlan dense = plan(llama_2_7b(), kParameters, request(1, 4096, 1)).serving;
  const ServingPlan compressed = plan(llama_2_7b(), kParameters, request(1, 4096, 4)).serving;
  EXPECT_NEAR(dense.cache, 2.0 * kGiB, 0.01 * kGiB);
  EXPECT_NEAR(compressed.cache, 0.5 * kGiB, 0.01 * kGiB);
  EXPECT_EQ(compressed.weights, dense.weights);
  // Streams x (12 weights, and 13 keys and values of 128) x 4 bytes.
  EXPECT_EQ(compressed.open_slots, 32 * 32 * (12 + 13 * 2 * 128) * 4);
}

TEST(Plan, TokensInsideTheDelayAreThereAsTheyAre) {
  model::ModelConfig config = llama_2_7b();
  config.dmc = model::DmcConfig{.window = 1};
  const auto cache = [&](int64_t delay) {
    config.dmc->delay = delay;
    return plan(config, kParameters, request(1, 4096, 4)).serving.cache;
  };
  EXPECT_NEAR(cache(1024), cache(0) * (1024 + 768) / 1024, 0.01 * kGiB);
  EXPECT_EQ(cache(1 << 20), cache(4096)) << "a text shorter than the delay";
}

TEST(Plan, SequencesShareWeightsAndNothingElse) {
  const Plan one = plan(llama_2_7b(), kParameters, request(1, 2048, 2));
  const Plan many = plan(llama_2_7b(), kParameters, request(24, 2048, 2));
  EXPECT_EQ(many.serving.weights, one.serving.weights);
  EXPECT_EQ(many.serving.cache, 24 * one.serving.cache);
  EXPECT_EQ(many.serving.open_slots, 24 * one.serving.open_slots);
  EXPECT_EQ(many.training.optimizer, one.training.optimizer);
  EXPECT_EQ(many.training.activations, 24 * one.training.activations);
}

TEST(Plan, TrainingStateIsSixteenBytesAParameterAndTwoForItsCopyInBf16) {
  PlanRequest half = request(1, 128, 1);
  half.training = DType::kBF16;
  const TrainingPlan single = plan(llama_2_7b(), kParameters, request(1, 128, 1)).training;
  const TrainingPlan copied = plan(llama_2_7b(), kParameters, half).training;
  EXPECT_EQ(single.weights + single.gradients + single.optimizer, 16 * kParameters);
  EXPECT_EQ(copied.weights + copied.gradients + copied.optimizer, 18 * kParameters);
}

TEST(Plan, WeightsOf4BitsTakeFiveBitsWithTheirGroups) {
  PlanRequest narrow = request(1, 128, 1);
  narrow.weights = DType::kI4;
  EXPECT_EQ(plan(llama_2_7b(), kParameters, narrow).serving.weights, kParameters * 5 / 8);
}

TEST(Plan, ProcessesShareMomentsAndSequencesAlone) {
  const TrainingPlan t = plan(llama_2_7b(), kParameters, request(6, 128, 1)).training;
  EXPECT_EQ(t.of_process(6, 1), t.total());
  EXPECT_EQ(t.of_process(6, 4),
            t.weights + t.gradients + t.optimizer / 4 + t.activations * 2 / 6);  // two of six
}

TEST(Plan, AllIsSharedOutButWhatIsWholeForAWhile) {
  const model::ModelConfig config = llama_2_7b();
  const auto of = [&](int64_t batch, int64_t processes) {
    return sharded_training(config, kParameters, request(batch, 128, 1), processes);
  };
  const double embeddings = 2.0 * 32000 * 4096, layer = (kParameters - embeddings) / 32;
  const double whole = 8 * embeddings + 16 * layer;
  const double one = of(1, 1) - 16 * kParameters - whole;  // a sequence's activations
  EXPECT_GT(one, 0);
  EXPECT_NEAR(of(8, 8), 16 * kParameters / 8 + whole + one, 1.0);
  EXPECT_NEAR(of(9, 8), of(16, 8), 1.0) << "sequences are rounded up";
  EXPECT_LT(of(8, 8), plan(config, kParameters, request(8, 128, 1)).training.of_process(8, 8));
}

TEST(Plan, RanksShareAllOfAServedModelButTheResidualStreamAndLogits) {
  const model::ModelConfig config = llama_2_7b();
  const PlanRequest asked = request(16, 4096, 4);
  const ServingPlan one = plan(config, kParameters, asked).serving;
  EXPECT_EQ(serving_of_rank(config, kParameters, asked, 1).total(), one.total());
  const ServingPlan of_eight = serving_of_rank(config, kParameters, asked, 8);
  EXPECT_EQ(of_eight.cache, one.cache / 8);
  EXPECT_EQ(of_eight.open_slots, one.open_slots / 8);
  EXPECT_EQ(of_eight.weights, 2 * (kParameters / 8 + (1.0 - 1.0 / 8) * 65 * 4096));
  const double stream = 4.0 * (4096 * 2 * 4096 + 16 * 32000);
  EXPECT_NEAR(of_eight.activations, stream + (one.activations - stream) / 8, 1e-6);
  EXPECT_THROW(serving_of_rank(config, kParameters, asked, 3), Error);
}

TEST(Plan, NoSizeAConfigMayHaveOverflows) {
  model::ModelConfig largest;
  largest.num_layers = 10'000;
  largest.head_dim = 4096;
  for (int64_t* size : {&largest.vocab_size, &largest.hidden_size, &largest.intermediate_size,
                        &largest.num_heads, &largest.num_kv_heads}) {
    *size = int64_t{1} << 24;
  }
  const Plan p = plan(largest, 1e20, request(1 << 20, 1 << 24, 1));
  EXPECT_GT(p.serving.total(), 1e20);  // far beyond 2^63
  EXPECT_GT(p.training.total(), 1e20);
}

}  // namespace
}  // namespace dmc::runtime
