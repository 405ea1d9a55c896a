// The device's whole runtime on the CPU (HostDevice) against DecoderRunner: the same logits, the
// same slots, and what it does when its room is spent.
#include "runtime/device/device_runner.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "engine/generate.h"
#include "runtime/device/device_pair_testing.h"
#include "runtime/variants_testing.h"

namespace dmc::runtime {
namespace {

namespace gpu = kernels::cuda;
using engine::SequenceId;

TEST(DeviceRunner, WritesWhatTheCpuWritesWithTheBuiltInModels) {
  for (const char* name : {"models/builtin", "models/builtin-4x", "models/builtin-dms"}) {
    SCOPED_TRACE(name);
    const auto model = load_model(name, DType::kF32);
    Pair pair(model);
    expect_same_text(pair, random_text(*model, 100, 1), 200, 2e-3);
  }
}

TEST(DeviceRunner, WritesWhatTheCpuWritesWhateverTheModel) {
  uint64_t seed = 1;
  for (const Variant& variant : variants()) {
    if (!variant.runs_on_a_device()) continue;
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    const auto model = random_model(variant.config, DType::kF32, seed);
    Pair pair(model, variant.options);
    // A number on the border between two of the 8-bit ones may be rounded to either.
    const double allowed = dtype_size(variant.options.kv) == 1 ? 2e-2 : 1e-3;
    expect_same_text(pair, random_text(*model, 60, seed), 80, allowed);
    expect_same_text(pair, random_text(*model, 1, seed), 40, allowed);
    if (HasFatalFailure()) return;
  }
}

// Activations are rounded for the products there; here they are not, but for weights of 4 bits,
// which meet activations of 8.
TEST(DeviceRunner, RoundsNoMoreThanWeightsThatAreRounded) {
  model::ModelConfig aligned = dmc_config();  // rows of 8 bits start at multiples of 16 bytes
  aligned.hidden_size = 48;
  aligned.intermediate_size = 64;
  aligned.attention_bias = true;
  for (const auto& [type, allowed] : {std::pair(DType::kBF16, 0.05), std::pair(DType::kF16, 0.006),
                                      std::pair(DType::kI8, 0.05), std::pair(DType::kI4, 0.1)}) {
    for (const model::ModelConfig& config : {dmc_config(), aligned, small_bert_config()}) {
      SCOPED_TRACE(std::string(dtype_name(type)) + ", " + std::to_string(config.hidden_size));
      const auto model = random_model(config, type, 40);
      Pair pair(model, {.compression = {.policy = "dense"}});
      const std::vector<int32_t> text = random_text(*model, 50, 41);
      expect_near(engine::prefill_logits(pair.device, pair.device.add_sequence(), text),
                  engine::prefill_logits(pair.cpu, pair.cpu.add_sequence(), text), allowed);
    }
  }
}

int64_t bytes_of_weights(DType type) {
  model::ModelConfig config = small_config();
  config.hidden_size = 256;
  const auto host = std::make_shared<HostDevice>();
  const int64_t before = host->bytes_left();
  const DeviceModel on = upload_model(host, random_model(config, type, 45));
  return before - host->bytes_left();
}

TEST(DeviceRunner, WeightsOf8BitsTakeHalfOfThoseOf16) {
  const double narrow = static_cast<double>(bytes_of_weights(DType::kI8));
  EXPECT_LT(narrow, 0.55 * static_cast<double>(bytes_of_weights(DType::kBF16)));
}

// As those of a checkpoint are that others have rounded.
TEST(DeviceRunner, ScalesThatTheLargestNumberDoesNotSayAreKept) {
  const auto model = std::const_pointer_cast<Model>(random_model(small_config(), DType::kI8, 46));
  for (LayerWeights& layer : model->weights.layers) {
    const std::vector<std::byte> row(static_cast<size_t>(model->config.hidden_size), std::byte{3});
    layer.up.weights.set_rounded_row(5, row.data(), 0.25f);
  }
  const auto host = std::make_shared<HostDevice>();
  const DeviceModel on = upload_model(host, model);
  const DeviceMatrix& matrix = on.weights->layers[0].up.matrix;
  EXPECT_EQ(matrix.scales.download()[5], 0.25f);
  EXPECT_EQ(matrix.data.download()[static_cast<size_t>(5 * matrix.inputs)], std::byte{3});
}

TEST(DeviceRunner, ActivationsThatF16CannotHoldAreItsLargestNumber) {
  const auto model = std::const_pointer_cast<Model>(random_model(small_config(), DType::kF16, 42));
  for (LayerWeights& layer : model->weights.layers) {
    for (float& x : layer.mlp_norm.weight) x *= 3000.0f;
  }
  Pair pair(model);
  for (float x :
       engine::prefill(pair.device, pair.device.add_sequence(), random_text(*model, 20, 43))) {
    ASSERT_TRUE(std::isfinite(x));
  }
}

TEST(DeviceRunner, ScoresATextAsTheCpuDoes) {
  const auto model = random_model(dmc_config(), DType::kF32, 50);
  Pair pair(model, {.chunk = 90});  // more than logits are made at a time
  const std::vector<int32_t> text = random_text(*model, 200, 51);
  expect_near(engine::prefill_logits(pair.device, pair.device.add_sequence(), text),
              engine::prefill_logits(pair.cpu, pair.cpu.add_sequence(), text), 1e-3);
}

TEST(DeviceRunner, SequencesOfABatchDoNotMeet) {
  const auto model = random_model(dmc_config(), DType::kF32, 60);
  Pair pair(model, {}, {.sequences = 5});
  std::vector<SequenceId> a, b;
  for (int i = 0; i < 5; ++i) {
    const std::vector<int32_t> prompt = random_text(*model, 5 + 20 * i, 61 + i);
    a.push_back(pair.cpu.add_sequence());
    b.push_back(pair.device.add_sequence());
    engine::prefill(pair.cpu, a.back(), prompt);
    engine::prefill(pair.device, b.back(), prompt);
  }
  Rng rng(66);
  for (int step = 0; step < 60; ++step) {
    // Now these, now those of them: 3 are served by the same recording as 4.
    const size_t count = 1 + rng.below(5), first = rng.below(6 - count);
    const auto tokens = random_text(*model, static_cast<int64_t>(count), 100 + step);
    SCOPED_TRACE("step " + std::to_string(step) + " of " + std::to_string(count));
    expect_near(engine::decode(pair.device, std::span(b).subspan(first, count), tokens),
                engine::decode(pair.cpu, std::span(a).subspan(first, count), tokens), 1e-3);
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(pair.host->recordings(), 4) << "of batches of 1, 2, 4 and 5";
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(pair.device.slots(b[i]), pair.cpu.slots(a[i]));
}

// A held ratio looks at the cache for every 16 tokens, so it is these that are recorded.
TEST(DeviceRunner, ShortChunksOfAPromptAreRecordedOnce) {
  const auto model = random_model(dmc_config(), DType::kF32, 65);
  Pair held(model, {.compression = {.cr = 2.0}}), whole(model);
  for (int i = 0; i < 3; ++i) {
    const std::vector<int32_t> prompt = random_text(*model, 50 + 7 * i, 66 + i);
    const SequenceId a = held.cpu.add_sequence(), b = held.device.add_sequence();
    expect_near(engine::prefill(held.device, b, prompt), engine::prefill(held.cpu, a, prompt),
                1e-3);
    EXPECT_EQ(held.device.slots(b), held.cpu.slots(a));
    engine::prefill(whole.device, whole.device.add_sequence(), prompt);
  }
  EXPECT_EQ(held.host->recordings(), 1);
  EXPECT_EQ(whole.host->recordings(), 0);
}

TEST(DeviceRunner, StepsFollowOneAnotherWithoutTheHost) {
  const auto model = random_model(dmc_config(), DType::kF32, 70);
  Pair pair(model);
  std::vector<SequenceId> a, b;
  std::vector<int32_t> first;
  for (int i = 0; i < 3; ++i) {
    const std::vector<int32_t> prompt = random_text(*model, 10 + 7 * i, 71 + i);
    a.push_back(pair.cpu.add_sequence());
    b.push_back(pair.device.add_sequence());
    first.push_back(likeliest(engine::prefill(pair.cpu, a.back(), prompt)));
    engine::prefill(pair.device, b.back(), prompt);
  }
  constexpr int64_t kSteps = 100;
  std::vector<int32_t> wanted, tokens = first;
  for (int64_t step = 0; step < kSteps; ++step) {
    const std::vector<float> logits = engine::decode(pair.cpu, a, tokens);
    for (size_t i = 0; i < a.size(); ++i) {
      const auto row = logits.begin() + static_cast<long>(i) * model->config.vocab_size;
      tokens[i] = likeliest({row, row + model->config.vocab_size});
    }
    wanted.insert(wanted.end(), tokens.begin(), tokens.end());
  }
  const int64_t waits = pair.host->waits();
  std::vector<engine::Writing> texts;
  for (size_t i = 0; i < b.size(); ++i) texts.push_back(greedy(pair.device, b[i], first[i]));
  const auto written = pair.device.write_batch(texts, kSteps);
  for (size_t i = 0; i < wanted.size(); ++i) {
    ASSERT_EQ(written[i % b.size()][i / b.size()], wanted[i]) << "token " << i;
  }
  EXPECT_LE(pair.host->waits() - waits, 2) << "for the tokens, and for what was refused";
  EXPECT_EQ(pair.device.length(b[2]), pair.cpu.length(a[2]));
}

// Each with its own options; some end at a stop token, and then take nothing in any more.
TEST(DeviceRunner, TextsOfABatchAreSampledAsTheCpuSamplesThem) {
  const auto model = random_model(dmc_config(), DType::kF32, 75);
  Pair pair(model);
  const std::vector<engine::SamplingOptions> sampling = {
      {.temperature = 0.0},
      {.temperature = 1.0, .top_p = 1.0, .seed = 1},
      {.temperature = 0.8, .top_k = 20, .top_p = 0.9, .seed = 2},
      {.temperature = 1.3, .seed = 3},
      {.temperature = 2.0, .top_k = 3, .seed = 4}};
  const std::vector<int64_t> stops = {3, 50};
  std::vector<SequenceId> ids;
  std::vector<engine::Writing> texts;
  std::vector<std::vector<int32_t>> wanted;
  constexpr int64_t kSteps = 40;
  size_t ended = 0;
  for (size_t i = 0; i < sampling.size(); ++i) {
    const std::vector<int32_t> prompt = random_text(*model, 10 + 9 * static_cast<int64_t>(i), i);
    const SequenceId a = pair.cpu.add_sequence();
    ids.push_back(pair.device.add_sequence());
    engine::prefill(pair.device, ids[i], prompt);
    const engine::Generation text = engine::generate(
        pair.cpu, a, prompt, {.max_tokens = kSteps + 1, .stop_ids = stops, .sampling = sampling[i]},
        [](int32_t) {}, [] { return false; });
    ended += text.stop == engine::StopReason::kEndOfText ? 1 : 0;
    texts.push_back({ids[i], text.tokens[0], pair.device.length(ids[i]) + 1, sampling[i], stops});
    wanted.emplace_back(text.tokens.begin() + 1, text.tokens.end());
  }
  const auto written = pair.device.write_batch(texts, kSteps);
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE("text " + std::to_string(i));
    std::vector<int32_t> text = written[i];
    EXPECT_EQ(pair.device.length(ids[i]), texts[i].position - 1 + std::ssize(text));
    if (std::ranges::find(stops, text.back()) != stops.end()) text.pop_back();
    EXPECT_EQ(text, wanted[i]);
  }
  EXPECT_GT(ended, 0u) << "some text must end early";
  EXPECT_LT(ended, texts.size()) << "and some not";
}

TEST(DeviceRunner, GeneratesWhatTheCpuGenerates) {
  const auto model = random_model(dmc_config(), DType::kF32, 76);
  Pair pair(model, {.max_positions = 100});
  std::vector<int64_t> many(gpu::kMostStops + 1);
  std::iota(many.begin(), many.end(), 60);  // more than a step looks out for
  for (const std::vector<int64_t>& stops : {std::vector<int64_t>{}, {5, 7}, many}) {
    for (const int64_t most : {1, 2, 30, 1000}) {
      engine::Generation texts[2];
      Runner* const runners[] = {&pair.cpu, &pair.device};
      for (int i = 0; i < 2; ++i) {
        const SequenceId id = runners[i]->add_sequence();
        texts[i] = engine::generate(
            *runners[i], id, random_text(*model, 20, 77),
            {.max_tokens = most, .stop_ids = stops, .sampling = {.temperature = 1.2, .seed = 5}},
            [](int32_t) {}, [] { return false; });
        EXPECT_EQ(runners[i]->length(id), 20 + texts[i].taken_in);
        runners[i]->release(id);
      }
      EXPECT_EQ(texts[1].tokens, texts[0].tokens);
      EXPECT_EQ(texts[1].stop, texts[0].stop);
      EXPECT_EQ(texts[1].taken_in, texts[0].taken_in);
    }
  }
}

// Each sequence by its own length and slots.
TEST(DeviceRunner, EverySequenceOfABatchHoldsTheRatio) {
  const auto model = random_model(dmc_config(), DType::kF32, 83);
  Pair pair(model, {.compression = {.cr = 2.0}});
  std::vector<SequenceId> a, b;
  for (int i = 0; i < 3; ++i) {
    const std::vector<int32_t> prompt = random_text(*model, 30 + 50 * i, 84 + i);
    a.push_back(pair.cpu.add_sequence());
    b.push_back(pair.device.add_sequence());
    expect_near(engine::prefill(pair.device, b.back(), prompt),
                engine::prefill(pair.cpu, a.back(), prompt), 1e-3);
  }
  for (int step = 0; step < 100; ++step) {
    const auto tokens = random_text(*model, 3, 800 + step);
    expect_near(engine::decode(pair.device, b, tokens), engine::decode(pair.cpu, a, tokens), 1e-3);
    if (HasFatalFailure()) return;
  }
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(pair.device.slots(b[i]), pair.cpu.slots(a[i]));
  EXPECT_NEAR(pair.device.compression_ratio(b[2]), 2.0, 0.5);
}

ErrorCode kind_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInternal;  // none
}

TEST(DeviceRunner, RefusesWhatTheDeviceDoesNotHave) {
  const auto usage = [](const model::ModelConfig& config, const RunnerOptions& options) {
    return kind_of([&] { Pair(random_model(config, DType::kF32, 1), options); });
  };
  model::ModelConfig huge = small_config();
  huge.vocab_size = gpu::kMostSampledTokens + 1;
  huge.hidden_size = huge.num_layers = 1;
  EXPECT_EQ(usage(huge, {}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(usage(dmc_config(), {.compression = {.mass_term = true}}), ErrorCode::kInvalidArgument);
}

TEST(DeviceRunner, TooLittleMemoryIsSaid) {
  const auto model = random_model(small_config(), DType::kF32, 1);
  const auto host = std::make_shared<HostDevice>(1 << 20);
  const DeviceModel on = upload_model(host, model);
  EXPECT_THROW(DeviceRunner(on, {.max_positions = 100000}, {.sequences = 64}), Error);
}

}  // namespace
}  // namespace dmc::runtime
