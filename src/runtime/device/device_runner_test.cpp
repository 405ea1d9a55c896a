// The device's whole runtime on the CPU (HostDevice) against DecoderRunner: the same logits, the
// same slots, and what it does when its room is spent.
#include "runtime/device/device_runner.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "engine/generate.h"
#include "runtime/device/device_testing.h"
#include "runtime/device/host_device.h"

namespace dmc::runtime {
namespace {

namespace gpu = kernels::cuda;
using engine::SequenceId;

io::ModelConfig dmc_config(int64_t window = 12) {
  io::ModelConfig config = small_config();
  config.dmc = io::DmcConfig{.window = window, .decision_offset = 0.05};
  return config;
}

io::ModelConfig dms_config(int64_t delay) {
  io::ModelConfig config = dmc_config(delay);
  config.dmc->method = "dms";
  return config;
}

// A model's two runners.
struct Pair {
  explicit Pair(const std::shared_ptr<const Model>& model, const RunnerOptions& options = {},
                const DeviceRoom& room = {})
      : cpu(model, options),
        host(std::make_shared<HostDevice>()),
        device(upload_model(host, model), options, room) {}

  DecoderRunner cpu;
  std::shared_ptr<HostDevice> host;
  DeviceRunner device;
};

void expect_near(const std::vector<float>& got, const std::vector<float>& wanted, double allowed) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], allowed) << "number " << i;
}

engine::Writing greedy(const DeviceRunner& runner, SequenceId sequence, int32_t token) {
  return {sequence, token, runner.length(sequence) + 1, {.temperature = 0.0}, {}};
}

// A prompt and `steps` likeliest tokens behind it.
void expect_same_text(Pair& pair, std::span<const int32_t> prompt, int64_t steps, double allowed) {
  const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  std::vector<float> wanted = pair.cpu.prefill(a, prompt), got = pair.device.prefill(b, prompt);
  for (int64_t step = 0; step < steps; ++step) {
    SCOPED_TRACE("step " + std::to_string(step));
    expect_near(got, wanted, allowed);
    if (testing::Test::HasFatalFailure()) return;
    const int32_t token = likeliest(wanted);
    ASSERT_EQ(likeliest(got), token);
    wanted = pair.cpu.decode({&a, 1}, {&token, 1});
    got = pair.device.decode({&b, 1}, {&token, 1});
  }
  EXPECT_EQ(pair.device.slots(b), pair.cpu.slots(a));
  EXPECT_EQ(pair.device.length(b), pair.cpu.length(a));
  EXPECT_EQ(pair.device.compression_ratio(b), pair.cpu.compression_ratio(a));
}

TEST(DeviceRunner, WritesWhatTheCpuWritesWithTheBuiltInModels) {
  for (const char* name : {"models/builtin", "models/builtin-4x", "models/builtin-dms"}) {
    SCOPED_TRACE(name);
    const auto model = load_model(name, DType::kF32);
    Pair pair(model);
    expect_same_text(pair, random_text(*model, 100, 1), 200, 2e-3);
  }
}

struct Variant {
  const char* name;
  io::ModelConfig config;
  RunnerOptions options;
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  const auto add = [&](const char* name, const io::ModelConfig& config,
                       const RunnerOptions& options = {}) {
    all.push_back({name, config, options});
  };
  io::ModelConfig biased = dmc_config(), normed = dmc_config(3), tied = dmc_config(0),
                  alone = dmc_config(1);
  biased.attention_bias = true;  // as Qwen 2
  normed.qk_norm = true;         // as Qwen 3
  tied.tie_embeddings = true;
  alone.num_kv_heads = alone.num_heads;  // a query a head
  alone.dmc->zero_after_rope = true;
  alone.dmc->importance_epsilon = 0.01;
  add("dense", small_config());
  add("bias", biased);
  add("head norms", normed);
  add("tied, no window", tied);
  add("newest token only", alone);
  add("short chunks", dmc_config(), {.chunk = 7});
  add("int8 slots", dmc_config(), {.kv = DType::kI8});
  add("fp8 slots", dmc_config(), {.kv = DType::kF8E4M3});
  add("f16 slots", dmc_config(), {.kv = DType::kF16});
  add("dense on dmc", dmc_config(), {.compression = {.policy = "dense"}});
  add("decision bias", dmc_config(), {.compression = {.decision_bias = 0.3}});
  add("a held ratio", dmc_config(), {.compression = {.cr = 2.5}});
  add("a held ratio and a bias", dmc_config(), {.compression = {.cr = 1.5, .decision_bias = 0.1}});
  for (const int64_t delay : {0, 1, 5, 16, 200}) {
    add("dms", dms_config(delay));
    add("dms, short chunks", dms_config(delay), {.chunk = 7});
  }
  add("dms in int8", dms_config(5), {.kv = DType::kI8});
  add("dms at a held ratio", dms_config(20), {.compression = {.cr = 2.0}});
  add("forced", small_config(), {.compression = {.forced_cr = 3.0}});
  add("forced on dmc", dmc_config(), {.compression = {.forced_cr = 2.0}});
  return all;
}

TEST(DeviceRunner, WritesWhatTheCpuWritesWhateverTheModel) {
  uint64_t seed = 1;
  for (const Variant& variant : variants()) {
    SCOPED_TRACE(std::string(variant.name) + ", seed " + std::to_string(++seed));
    const auto model = random_model(variant.config, DType::kF32, seed);
    Pair pair(model, variant.options);
    // A number on the border between two of the 8-bit ones may be rounded to either.
    const double allowed = dtype_size(variant.options.kv) == 1 ? 1e-2 : 1e-3;
    expect_same_text(pair, random_text(*model, 60, seed), 80, allowed);
    expect_same_text(pair, random_text(*model, 1, seed), 40, allowed);
    if (HasFatalFailure()) return;
  }
}

// Activations are rounded for the products there, here they are not.
TEST(DeviceRunner, RoundsNoMoreThanTheWeightsOf16Bits) {
  for (const auto& [type, allowed] :
       {std::pair(DType::kBF16, 0.05), std::pair(DType::kF16, 0.006)}) {
    SCOPED_TRACE(dtype_name(type));
    const auto model = random_model(dmc_config(), type, 40);
    Pair pair(model, {.compression = {.policy = "dense"}});
    const std::vector<int32_t> text = random_text(*model, 50, 41);
    expect_near(pair.device.prefill_logits(pair.device.add_sequence(), text),
                pair.cpu.prefill_logits(pair.cpu.add_sequence(), text), allowed);
  }
}

TEST(DeviceRunner, ActivationsThatF16CannotHoldAreItsLargestNumber) {
  const auto model = std::const_pointer_cast<Model>(random_model(small_config(), DType::kF16, 42));
  for (LayerWeights& layer : model->weights.layers) {
    for (float& x : layer.mlp_norm.weight) x *= 3000.0f;
  }
  Pair pair(model);
  for (float x : pair.device.prefill(pair.device.add_sequence(), random_text(*model, 20, 43))) {
    ASSERT_TRUE(std::isfinite(x));
  }
}

TEST(DeviceRunner, ScoresATextAsTheCpuDoes) {
  const auto model = random_model(dmc_config(), DType::kF32, 50);
  Pair pair(model, {.chunk = 90});  // more than logits are made at a time
  const std::vector<int32_t> text = random_text(*model, 200, 51);
  expect_near(pair.device.prefill_logits(pair.device.add_sequence(), text),
              pair.cpu.prefill_logits(pair.cpu.add_sequence(), text), 1e-3);
}

TEST(DeviceRunner, SequencesOfABatchDoNotMeet) {
  const auto model = random_model(dmc_config(), DType::kF32, 60);
  Pair pair(model, {}, {.sequences = 5});
  std::vector<SequenceId> a, b;
  for (int i = 0; i < 5; ++i) {
    const std::vector<int32_t> prompt = random_text(*model, 5 + 20 * i, 61 + i);
    a.push_back(pair.cpu.add_sequence());
    b.push_back(pair.device.add_sequence());
    pair.cpu.prefill(a.back(), prompt);
    pair.device.prefill(b.back(), prompt);
  }
  Rng rng(66);
  for (int step = 0; step < 60; ++step) {
    // Now these, now those of them: 3 are served by the same recording as 4.
    const size_t count = 1 + rng.below(5), first = rng.below(6 - count);
    const auto tokens = random_text(*model, static_cast<int64_t>(count), 100 + step);
    SCOPED_TRACE("step " + std::to_string(step) + " of " + std::to_string(count));
    expect_near(pair.device.decode(std::span(b).subspan(first, count), tokens),
                pair.cpu.decode(std::span(a).subspan(first, count), tokens), 1e-3);
    if (HasFatalFailure()) return;
  }
  EXPECT_EQ(pair.host->recordings(), 4) << "of batches of 1, 2, 4 and 5";
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(pair.device.slots(b[i]), pair.cpu.slots(a[i]));
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
    first.push_back(likeliest(pair.cpu.prefill(a.back(), prompt)));
    pair.device.prefill(b.back(), prompt);
  }
  constexpr int64_t kSteps = 100;
  std::vector<int32_t> wanted, tokens = first;
  for (int64_t step = 0; step < kSteps; ++step) {
    const std::vector<float> logits = pair.cpu.decode(a, tokens);
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
    pair.device.prefill(ids[i], prompt);
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

TEST(DeviceRunner, AForkGoesItsOwnWay) {
  const auto model = random_model(dmc_config(), DType::kF32, 80);
  Pair pair(model);
  const std::vector<int32_t> prompt = random_text(*model, 90, 81);
  const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  pair.cpu.prefill(a, prompt);
  pair.device.prefill(b, prompt);
  const SequenceId a2 = pair.cpu.fork(a), b2 = pair.device.fork(b);
  EXPECT_EQ(pair.device.slots(b2), pair.cpu.slots(a2));
  EXPECT_GT(pair.device.compression_ratio(b2), 1.2) << "these models do merge";
  for (int step = 0; step < 40; ++step) {
    const auto one = random_text(*model, 1, 200 + step), two = random_text(*model, 1, 300 + step);
    expect_near(pair.device.decode({&b, 1}, one), pair.cpu.decode({&a, 1}, one), 1e-3);
    expect_near(pair.device.decode({&b2, 1}, two), pair.cpu.decode({&a2, 1}, two), 1e-3);
    if (HasFatalFailure()) return;
  }
  pair.device.release(b);
  const auto last = random_text(*model, 1, 400);
  expect_near(pair.device.decode({&b2, 1}, last), pair.cpu.decode({&a2, 1}, last), 1e-3);
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
    expect_near(pair.device.prefill(b.back(), prompt), pair.cpu.prefill(a.back(), prompt), 1e-3);
  }
  for (int step = 0; step < 100; ++step) {
    const auto tokens = random_text(*model, 3, 800 + step);
    expect_near(pair.device.decode(b, tokens), pair.cpu.decode(a, tokens), 1e-3);
    if (HasFatalFailure()) return;
  }
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(pair.device.slots(b[i]), pair.cpu.slots(a[i]));
  EXPECT_NEAR(pair.device.compression_ratio(b[2]), 2.0, 0.5);
}

// Forks of forks, decoded together and alone, taking prompts in, released in any order. In the end
// every page is free again.
void expect_same_forks(const io::ModelConfig& config, uint64_t seed) {
  SCOPED_TRACE(config.dmc->method + ", seed " + std::to_string(seed));
  constexpr int kRows = 6;
  const auto model = random_model(config, DType::kF32, seed);
  Pair pair(model, {}, {.sequences = kRows});
  std::vector<SequenceId> a = {pair.cpu.add_sequence()}, b = {pair.device.add_sequence()};
  const std::vector<int32_t> prompt = random_text(*model, 120, 86);
  pair.cpu.prefill(a[0], prompt);
  pair.device.prefill(b[0], prompt);
  const int64_t alone = pair.device.cache_bytes();
  b.push_back(pair.device.fork(b[0]));
  a.push_back(pair.cpu.fork(a[0]));
  EXPECT_LT(pair.device.cache_bytes(), 2 * alone) << "pages are shared";
  Rng rng(seed);
  for (int round = 0; round < 60; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const size_t which = rng.below(a.size());
    if (rng.below(3) == 0 && a.size() < kRows) {
      a.push_back(pair.cpu.fork(a[which]));
      b.push_back(pair.device.fork(b[which]));
    } else if (rng.below(4) == 0 && a.size() > 1) {
      pair.cpu.release(a[which]);
      pair.device.release(b[which]);
      a.erase(a.begin() + static_cast<long>(which));
      b.erase(b.begin() + static_cast<long>(which));
    } else if (rng.below(4) == 0) {
      const auto more = random_text(*model, 1 + static_cast<int64_t>(rng.below(20)), 500 + round);
      if (pair.cpu.length(a[which]) + 30 > pair.cpu.max_positions()) continue;
      expect_near(pair.device.prefill(b[which], more), pair.cpu.prefill(a[which], more), 1e-3);
    } else {
      const auto tokens = random_text(*model, static_cast<int64_t>(a.size()), 600 + round);
      expect_near(pair.device.decode(b, tokens), pair.cpu.decode(a, tokens), 1e-3);
    }
    if (testing::Test::HasFatalFailure()) return;
  }
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(pair.device.slots(b[i]), pair.cpu.slots(a[i]));
  for (const SequenceId id : b) pair.device.release(id);
  EXPECT_EQ(pair.device.cache_bytes(), 0);
}

TEST(DeviceRunner, ForksSharePagesUntilTheyWrite) {
  for (const uint64_t seed : {85, 185, 285}) expect_same_forks(dmc_config(), seed);
}

TEST(DeviceRunner, ForksDropSlotsOfSharedPagesAlone) {
  for (const uint64_t seed : {86, 186, 286}) expect_same_forks(dms_config(11), seed);
}

TEST(DeviceRunner, PagesOfDroppedSlotsComeBackWhileTheTextRuns) {
  const auto model = random_model(dms_config(8), DType::kF32, 180);
  Pair pair(model, {}, {.sequences = 1});
  const SequenceId id = pair.device.add_sequence();
  const int64_t empty = pair.device.cache_bytes();
  pair.device.prefill(id, random_text(*model, 10, 181));
  for (int step = 0; step < 250; ++step) {
    const auto token = random_text(*model, 1, 900 + step);
    pair.device.decode({&id, 1}, token);
  }
  const std::vector<int64_t> slots = pair.device.slots(id);
  int64_t pages = 0;
  for (const int64_t count : slots) pages += (count - 1 + 15) / 16;
  EXPECT_GT(pair.device.compression_ratio(id), 1.3) << "these models do drop tokens";
  const int64_t page_bytes = 16 * 2 * model->config.head_dim * 4;
  EXPECT_EQ(pair.device.cache_bytes() - empty, pages * page_bytes) << "none is held for nothing";
}

// A fork takes no page; what it writes then does.
TEST(DeviceRunner, ForksThatFindNoPageToWriteOnFailAlone) {
  const auto model = random_model(small_config(), DType::kF32, 88);
  Pair pair(model, {}, {.sequences = 3, .pages = 4 * 2});
  const std::vector<int32_t> prompt =
      random_text(*model, 24, 89);  // 2 pages a stream, one not full
  const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  pair.cpu.prefill(a, prompt);
  pair.device.prefill(b, prompt);
  const SequenceId fork = pair.device.fork(b);
  EXPECT_THROW(pair.device.decode({&fork, 1}, {prompt.data(), 1}), Error);
  EXPECT_THROW(pair.device.copy(b), Error);
  pair.device.release(fork);
  for (int step = 0; step < 6; ++step) {
    const auto next = random_text(*model, 1, 700 + step);
    expect_near(pair.device.decode({&b, 1}, next), pair.cpu.decode({&a, 1}, next), 1e-3);
  }
}

TEST(DeviceRunner, WithoutPagesACallFailsAndOthersGoOn) {
  const auto model = random_model(small_config(), DType::kF32, 90);
  Pair pair(model, {}, {.sequences = 3, .pages = 4 * 5});  // 5 pages for each of 4 streams
  const std::vector<int32_t> prompt = random_text(*model, 40, 91);
  const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  pair.cpu.prefill(a, prompt);
  pair.device.prefill(b, prompt);  // 3 pages a stream

  const SequenceId greedy = pair.device.add_sequence();
  EXPECT_THROW(pair.device.prefill(greedy, prompt), Error);
  pair.device.release(greedy);
  const SequenceId slow = pair.device.add_sequence();
  pair.device.prefill(slow, random_text(*model, 32, 92));  // the last two pages of each stream
  const std::span<const int32_t> token(prompt.data(), 1);
  const auto go_on = [&] {
    for (int step = 0; step < 20; ++step) pair.device.decode({&slow, 1}, token);
  };
  EXPECT_THROW(go_on(), Error);
  EXPECT_THROW(pair.device.copy(b), Error);
  pair.device.release(slow);

  for (int step = 0; step < 30; ++step) {
    const auto next = random_text(*model, 1, 500 + step);
    expect_near(pair.device.decode({&b, 1}, next), pair.cpu.decode({&a, 1}, next), 1e-3);
    if (HasFatalFailure()) return;
  }
}

TEST(DeviceRunner, ReleasedSequencesLeaveNothing) {
  const auto model = random_model(dmc_config(), DType::kF32, 95);
  Pair pair(model, {}, {.sequences = 2});
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(pair.device.cache_bytes(), 0);
    const SequenceId one = pair.device.add_sequence();
    pair.device.prefill(one, random_text(*model, 100, 96 + round));
    const SequenceId two = pair.device.fork(one);
    EXPECT_GT(pair.device.cache_bytes(), 0);
    EXPECT_THROW(pair.device.add_sequence(), Error) << "both rows are taken";
    pair.device.release(one);
    pair.device.release(two);
  }
}

ErrorKind kind_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error.kind();
  }
  return ErrorKind::kInternal;  // none
}

TEST(DeviceRunner, RefusesWhatTheDeviceDoesNotHave) {
  const auto usage = [](const io::ModelConfig& config, const RunnerOptions& options,
                        DType type = DType::kF32) {
    return kind_of([&] { Pair(random_model(config, type, 1), options); });
  };
  io::ModelConfig other = small_config(), adapted = dmc_config();
  other.learned_positions = true;
  adapted.dmc->decision_source = "adapter";
  EXPECT_EQ(usage(other, {}), ErrorKind::kUsage);
  EXPECT_EQ(usage(adapted, {}), ErrorKind::kUsage);
  EXPECT_EQ(usage(small_config(), {.compression = {.policy = "h2o", .budget = 20}}),
            ErrorKind::kUsage);
  EXPECT_EQ(usage(dmc_config(), {.compression = {.mass_term = true}}), ErrorKind::kUsage);
  EXPECT_EQ(usage(small_config(), {}, DType::kI8), ErrorKind::kUsage);
}

TEST(DeviceRunner, TooLittleMemoryIsSaid) {
  const auto model = random_model(small_config(), DType::kF32, 1);
  const auto host = std::make_shared<HostDevice>(1 << 20);
  const DeviceModel on = upload_model(host, model);
  EXPECT_THROW(DeviceRunner(on, {.max_positions = 100000}, {.sequences = 64}), Error);
}

}  // namespace
}  // namespace dmc::runtime
