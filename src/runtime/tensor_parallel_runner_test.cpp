// A model on several ranks against the same one alone: families, policies, steps of chance, forks,
// pages that run out on one rank, and a rank that fails.
#include "runtime/tensor_parallel_runner.h"

#include <gtest/gtest.h>

#include "runtime/sharded_testing.h"
#include "runtime/step_testing.h"

namespace dmc::runtime {
namespace {

using engine::Sequence;
using engine::SequenceId;
using engine::StepItem;

// All that ranks can share, with KV heads for each of them.
std::vector<Variant> shared_variants(int ranks) {
  std::vector<Variant> all = all_variants();
  std::erase_if(all, [](const Variant& variant) {
    const policy::Policy* const named = policy::find_policy(variant.options.compression.policy);
    return named != nullptr && named->layer_wide;
  });
  for (Variant& variant : all) {
    model::ModelConfig& config = variant.config;
    if (config.num_kv_heads % ranks == 0) continue;
    const int64_t group = config.group_size();
    config.num_kv_heads = ranks;
    config.num_heads = ranks * group;
  }
  return all;
}

class TensorParallel : public testing::TestWithParam<int> {
 protected:
  int ranks() const { return GetParam(); }
  TensorParallelRunner on_ranks(const Model& whole, const RunnerOptions& options) const {
    return {shards_of(whole, ranks()), options};
  }
};

TEST_P(TensorParallel, StepsOfEveryFamilyAndPolicyAreThoseOfOneRank) {
  uint64_t seed = 3000;
  for (const Variant& variant : shared_variants(ranks())) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    const auto model = random_model(variant.config, DType::kF32, seed);
    TensorParallelRunner several = on_ranks(*model, variant.options);
    DecoderRunner one(model, variant.options);
    // A key or value that is rounded to 8 bits can fall on the other side.
    const double allowed = dtype_size(variant.options.kv) == 1 ? 2e-2 : 2e-4;
    expect_same_steps(several, one, seed, allowed);
    for (int rank = 0; rank < ranks(); ++rank) several.rank(rank).cache().check_invariants();
    if (HasFatalFailure()) return;
  }
}

// A prompt and the likeliest tokens behind it.
TEST_P(TensorParallel, GreedyTextAndDecisionsAreThoseOfOneRank) {
  uint64_t seed = 3100;
  for (const Variant& variant : shared_variants(ranks())) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    const auto model = random_model(variant.config, DType::kF32, seed);
    TensorParallelRunner several = on_ranks(*model, variant.options);
    DecoderRunner one(model, variant.options);
    const auto a = Sequence::add(several), b = Sequence::add(one);
    const SequenceId in_several = a.id(), in_one = b.id();
    const std::vector<int32_t> prompt = random_text(*model, 70, seed);
    std::vector<float> got = engine::prefill(several, in_several, prompt),
                       wanted = engine::prefill(one, in_one, prompt);
    for (int step = 0; step < 30; ++step) {
      const int32_t token = likeliest(wanted);
      ASSERT_EQ(likeliest(got), token) << "step " << step;
      got = engine::decode(several, {&in_several, 1}, {&token, 1});
      wanted = engine::decode(one, {&in_one, 1}, {&token, 1});
    }
    EXPECT_EQ(several.slots(in_several), one.slots(in_one));
    EXPECT_EQ(several.length(in_several), one.length(in_one));
    EXPECT_EQ(several.compression_ratio(in_several), one.compression_ratio(in_one));
    EXPECT_EQ(several.pages_of(in_several), one.pages_of(in_one));
    EXPECT_EQ(several.cache_bytes(), one.cache_bytes());
    if (HasFailure()) return;
  }
}

// Whatever else is in the step, as on one rank.
TEST_P(TensorParallel, AMixedStepGivesEachSequenceTheBitsItGetsAlone) {
  uint64_t seed = 3200;
  const std::vector<Variant> all = shared_variants(ranks());
  for (size_t i = 0; i < all.size(); i += 3) {
    const Variant& variant = all[i];
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    const auto model = random_model(variant.config, DType::kF32, seed);
    TensorParallelRunner mixed = on_ranks(*model, variant.options),
                         alone = on_ranks(*model, variant.options);
    expect_same_steps(mixed, alone, seed, 0.0);
    if (HasFatalFailure()) return;
  }
}

TEST_P(TensorParallel, ForksGoOnAsTheyDoOnOneRank) {
  for (const Variant& variant : shared_variants(ranks())) {
    SCOPED_TRACE(variant.name);
    const auto model = random_model(variant.config, DType::kF32, 5);
    TensorParallelRunner several = on_ranks(*model, variant.options);
    DecoderRunner one(model, variant.options);
    std::vector<Sequence> a, b;
    a.push_back(Sequence::add(several));
    b.push_back(Sequence::add(one));
    engine::prefill(several, a[0].id(), random_text(*model, 50, 6));
    engine::prefill(one, b[0].id(), random_text(*model, 50, 6));
    for (size_t i = 0; i < 2; ++i) {
      a.push_back(a[i].fork());
      b.push_back(b[i].fork());
      const std::vector<int32_t> text = random_text(*model, 9, 7 + i);
      engine::prefill_logits(several, a.back().id(), text);
      engine::prefill_logits(one, b.back().id(), text);
    }
    const std::vector<SequenceId> in_several = ids_of(a), in_one = ids_of(b);
    for (int step = 0; step < 10; ++step) {
      const std::vector<int32_t> tokens = random_text(*model, 3, 100 + step);
      expect_near(engine::decode(several, in_several, tokens), engine::decode(one, in_one, tokens),
                  dtype_size(variant.options.kv) == 1 ? 2e-2 : 2e-4);
      if (HasFatalFailure()) return;
    }
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(several.slots(in_several[i]), one.slots(in_one[i]));
    }
    EXPECT_EQ(several.cache_bytes(), one.cache_bytes());
  }
}

// Heads compress differently, so ranks fill at different rates: the fullest decides.
TEST_P(TensorParallel, AStepHasItsPagesOnEveryRankOrChangesNoneOfThem) {
  uint64_t seed = 3400;
  int refused = 0;
  for (const Variant& variant : shared_variants(ranks())) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    RunnerOptions options = variant.options;
    options.max_pages = 8 * variant.config.num_layers * variant.config.num_kv_heads;
    TensorParallelRunner several =
        on_ranks(*random_model(variant.config, DType::kF32, seed), options);
    EXPECT_EQ(several.total_pages(), options.max_pages);
    refused += expect_all_or_nothing(several, seed);
    for (int rank = 0; rank < ranks(); ++rank) {
      several.rank(rank).cache().check_invariants();
      EXPECT_EQ(several.rank(rank).free_pages(), several.rank(rank).total_pages());
    }
    if (HasFailure()) return;
  }
  EXPECT_GT(refused, 50);
}

// The numbers of slots of one rank after another, and of the pages that are free on each.
std::vector<std::vector<int64_t>> state_of_ranks(const TensorParallelRunner& runner, int ranks,
                                                 SequenceId id) {
  std::vector<std::vector<int64_t>> state;
  for (int rank = 0; rank < ranks; ++rank) {
    state.push_back(runner.rank(rank).slots(id));
    state.back().push_back(runner.rank(rank).length(id));
    state.back().push_back(runner.rank(rank).free_pages());
  }
  return state;
}

TEST_P(TensorParallel, PagesThatRunOutOnOneRankAloneLeaveEveryRankAsItWas) {
  model::ModelConfig config = dmc_config();
  config.num_kv_heads = 4;
  config.num_heads = 8;
  auto model = std::const_pointer_cast<Model>(random_model(config, DType::kF32, 8));
  // The last KV head's tokens never merge, those of the others always do.
  const int64_t d = config.head_dim, D = config.hidden_size;
  for (LayerWeights& layer : model->weights.layers) {
    layer.qkv.bias.assign(static_cast<size_t>((config.num_heads + 2 * config.num_kv_heads) * d), 0);
    for (int64_t head = 0; head < config.num_kv_heads; ++head) {
      const int64_t channel = (config.num_heads + head + 1) * d - 1;
      layer.qkv.weights.set_rows(channel, 1, std::vector<float>(static_cast<size_t>(D)).data());
      layer.qkv.bias[static_cast<size_t>(channel)] = head < 3 ? 1e3f : -1e3f;
    }
  }
  RunnerOptions options;
  options.max_pages = 4 * config.num_layers * config.num_kv_heads;
  TensorParallelRunner several = on_ranks(*model, options);
  const auto text = Sequence::add(several);
  const SequenceId id = text.id();
  int64_t taken = 0;
  for (;; ++taken) {
    ASSERT_LT(taken, 290) << "no rank's pages ran out";
    const auto before = state_of_ranks(several, ranks(), id);
    const int32_t token = static_cast<int32_t>(taken % config.vocab_size);
    try {
      engine::decode(several, {&id, 1}, {&token, 1});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kExhausted);
      EXPECT_EQ(state_of_ranks(several, ranks(), id), before);
      break;
    }
  }
  const DecoderRunner& fullest = several.rank(ranks() - 1);
  EXPECT_EQ(several.free_pages(), ranks() * fullest.free_pages());
  EXPECT_LT(fullest.free_pages(), std::ssize(fullest.slots(id))) << "a page for each stream";
  const DecoderRunner& emptiest = several.rank(0);
  EXPECT_GT(emptiest.free_pages(), emptiest.total_pages() / 2) << "it has room for much more";
}

// A group whose rank fails in its n-th collective.
class FailingGroup final : public comm::Group {
 public:
  FailingGroup(std::unique_ptr<comm::Group> group, const int* calls_left)
      : group_(std::move(group)), calls_left_(calls_left) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  void all_reduce(void* data, int64_t count, DType type, comm::Stream stream) override {
    if (*calls_left_ == calls_++) throw internal_error("the rank's memory is broken");
    group_->all_reduce(data, count, type, stream);
  }
  void all_gather(const void* from, int64_t count, DType type, void* to,
                  comm::Stream stream) override {
    group_->all_gather(from, count, type, to, stream);
  }
  void reduce_scatter(const void* from, int64_t count, DType type, void* to,
                      comm::Stream stream) override {
    group_->reduce_scatter(from, count, type, to, stream);
  }
  void broadcast(void* data, int64_t count, DType type, int root, comm::Stream stream) override {
    group_->broadcast(data, count, type, root, stream);
  }
  void barrier(comm::Stream stream) override { group_->barrier(stream); }
  void abort() override { group_->abort(); }
  void recover() override {
    calls_ = 0;
    group_->recover();
  }

 private:
  std::unique_ptr<comm::Group> group_;
  const int* const calls_left_;
  int calls_ = 0;
};

TEST_P(TensorParallel, ARankThatFailsEndsTheStepAndTheOthersCanGoOn) {
  model::ModelConfig config = dmc_config();
  config.num_kv_heads = 4;
  const auto model = random_model(config, DType::kF32, 9);
  DecoderRunner one(model, {});
  const std::vector<int32_t> prompt = random_text(*model, 40, 10);
  const auto in_one = Sequence::add(one);
  const std::vector<float> wanted = engine::prefill(one, in_one.id(), prompt);
  for (int failing = 0; failing < ranks(); ++failing) {
    for (int after : {0, 1, 4}) {  // of the embedding, and two for each of two layers
      int calls_left = after;
      auto groups = comm::thread_groups(ranks());
      auto& place = groups[static_cast<size_t>(failing)];
      place = std::make_unique<FailingGroup>(std::move(place), &calls_left);
      TensorParallelRunner several(shards_of(*model, ranks()), {.max_pages = 4000},
                                   std::move(groups));
      {
        const auto lost = Sequence::add(several);
        try {
          engine::prefill(several, lost.id(), prompt);
          FAIL() << "nothing was thrown";
        } catch (const Error& error) {
          EXPECT_STREQ(error.what(), "the rank's memory is broken");
        }
        EXPECT_EQ(several.length(lost.id()), 0);
      }
      EXPECT_EQ(several.free_pages(), several.total_pages());
      calls_left = -1;  // never again
      const auto text = Sequence::add(several);
      expect_near(engine::prefill(several, text.id(), prompt), wanted, 2e-4);
      EXPECT_EQ(several.slots(text.id()), one.slots(in_one.id()));
      if (HasFailure()) return;
    }
  }
}

TEST_P(TensorParallel, APromptThatIsGivenUpLeavesNothingBehindOnAnyRank) {
  model::ModelConfig config = dmc_config();
  config.num_kv_heads = 4;
  const auto model = random_model(config, DType::kF32, 15);
  const std::vector<int32_t> text = random_text(*model, 50, 16);
  int layers_left = -1;
  RunnerOptions options{.chunk = 20, .max_pages = 400};
  options.cancelled = [&] { return layers_left-- == 0; };
  TensorParallelRunner several = on_ranks(*model, options);
  DecoderRunner one(model, {.chunk = 20});
  for (const int asked : {0, 1, 3}) {
    layers_left = asked;
    const auto given_up = Sequence::add(several);
    try {
      engine::prefill(several, given_up.id(), text);
      FAIL() << "went on after " << asked << " layers";
    } catch (const comm::RankLost&) {
      FAIL() << "the consequence is thrown instead of the cause";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCancelled);
    }
  }
  EXPECT_EQ(several.free_pages(), several.total_pages());
  layers_left = -1;
  expect_near(engine::prefill(several, several.add_sequence(), text),
              engine::prefill(one, one.add_sequence(), text), 2e-4);
}

INSTANTIATE_TEST_SUITE_P(Ranks, TensorParallel, testing::Values(2, 4));

TEST(TensorParallelRunner, OfOneRankGivesTheBitsOfTheRunnerItHas) {
  const auto model = random_model(dmc_config(), DType::kF32, 13);
  TensorParallelRunner several(shards_of(*model, 1), {});
  DecoderRunner one(model, {});
  expect_same_steps(several, one, 14, 0.0);
}

TEST(TensorParallelRunner, RefusesAPolicyThatComparesHeads) {
  const auto model = random_model(small_config(), DType::kF32, 1);
  const RunnerOptions options{.compression = {.policy = "tova", .budget = 20}};
  try {
    TensorParallelRunner(shards_of(*model, 2), options);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(error.field(), "policy");
  }
  EXPECT_NO_THROW(TensorParallelRunner(shards_of(*model, 1), options));
}

TEST(TensorParallelRunner, MovesTheRatioOfOneSequence) {
  model::ModelConfig config = dmc_config();
  const auto model = random_model(config, DType::kF32, 11);
  const RunnerOptions options{.compression = {.cr = 1.5}};
  TensorParallelRunner several(shards_of(*model, 2), options);
  DecoderRunner one(model, options);
  const std::vector<int32_t> text = random_text(*model, 250, 12);
  for (Runner* runner : {static_cast<Runner*>(&several), static_cast<Runner*>(&one)}) {
    ASSERT_TRUE(runner->can_hold_ratios());
    runner->add_sequence();
    runner->hold_ratio(runner->add_sequence(), 4.0);
    engine::prefill(*runner, 1, text);
    engine::prefill(*runner, 2, text);
  }
  EXPECT_EQ(several.slots(1), one.slots(1));
  EXPECT_EQ(several.slots(2), one.slots(2));
  EXPECT_GT(several.compression_ratio(2), several.compression_ratio(1) + 0.5);
}

}  // namespace
}  // namespace dmc::runtime
