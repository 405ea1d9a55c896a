// The runtime on a GPU against the same on the CPU: HostDevice runs what CudaDevice runs. Without a
// GPU it is skipped.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "gpu_testing.h"
#include "runtime/device/device_runner.h"
#include "runtime/device/device_testing.h"
#include "runtime/device/host_device.h"

namespace dmc::runtime {
namespace {

using engine::SequenceId;
using kernels::cuda::relative_error;

// Null without a GPU; one that cannot be used is an error.
std::shared_ptr<kernels::cuda::Device> gpu() {
  static const auto device = []() -> std::shared_ptr<kernels::cuda::Device> {
    try {
      return kernels::cuda::open_cuda_device();
    } catch (const Error& error) {
      if (std::string(error.what()).find("no GPU") == std::string::npos) throw;
      return nullptr;
    }
  }();
  return device;
}

// Of head size 64, the least that attention is compiled for.
model::ModelConfig config_for_gpu() {
  model::ModelConfig config = small_config();
  config.head_dim = 64;
  config.dmc = model::DmcConfig{.decision_offset = 0.05};
  return config;
}

void expect_same(const std::vector<float>& got, const std::vector<float>& wanted, DType type) {
  ASSERT_EQ(got.size(), wanted.size());
  const double allowed = type == DType::kF32 ? 1e-4 : type == DType::kF16 ? 3e-3 : 2e-2;
  EXPECT_LE(relative_error(got, wanted), allowed);
}

// Written on with the likeliest tokens and with drawn ones, until one of two stop tokens.
std::vector<engine::Writing> texts_of(const DeviceRunner& runner,
                                      const std::vector<SequenceId>& sequences,
                                      const std::vector<int32_t>& tokens) {
  static constexpr int64_t kStops[] = {11, 40};
  std::vector<engine::Writing> texts;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const engine::SamplingOptions sampling{.temperature = 0.4 * static_cast<double>(i % 4),
                                           .top_k = i % 3 == 0 ? 20 : 0,
                                           .top_p = i % 2 == 0 ? 0.9 : 1.0,
                                           .seed = i};
    texts.push_back({sequences[i], tokens[i], runner.length(sequences[i]) + 1, sampling, kStops});
  }
  return texts;
}

// The same prompts and steps on both, in batches that our own products serve and in ones that go to
// cuBLAS.
void expect_same_runs(const model::ModelConfig& config, DType weights, const RunnerOptions& options,
                      size_t sequences = 12) {
  const auto model = random_model(config, weights, 7);
  const DeviceRoom room{.sequences = static_cast<int>(sequences)};
  DeviceRunner wanted(upload_model(std::make_shared<HostDevice>(), model), options, room);
  DeviceRunner got(upload_model(gpu(), model), options, room);
  std::vector<SequenceId> a, b;
  for (size_t i = 0; i + 1 < sequences; ++i) {
    const std::vector<int32_t> prompt =
        random_text(*model, static_cast<int64_t>(1 + 120 / sequences * i), 10 + i);
    a.push_back(wanted.add_sequence());
    b.push_back(got.add_sequence());
    expect_same(engine::prefill(got, b.back(), prompt), engine::prefill(wanted, a.back(), prompt),
                weights);
  }
  a.push_back(wanted.fork(a.back()));
  b.push_back(got.fork(b.back()));
  for (size_t count : {size_t{1}, size_t{3}, sequences, size_t{1}, sequences, sequences}) {
    SCOPED_TRACE("a batch of " + std::to_string(count));
    const auto tokens = random_text(*model, static_cast<int64_t>(count), 50 + count);
    expect_same(engine::decode(got, std::span(b).first(count), tokens),
                engine::decode(wanted, std::span(a).first(count), tokens), weights);
  }
  const std::vector<int32_t> tokens = random_text(*model, std::ssize(a), 90);
  if (weights == DType::kF32) {
    EXPECT_EQ(got.write_batch(texts_of(got, b, tokens), 50),
              wanted.write_batch(texts_of(wanted, a, tokens), 50));
    for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(got.slots(b[i]), wanted.slots(a[i]));
  }
  for (SequenceId id : b) got.release(id);
  EXPECT_EQ(got.cache_bytes(), 0);
}

TEST(CudaDevice, RunsAsTheCpuInItsPlace) {
  if (gpu() == nullptr) GTEST_SKIP() << "no GPU";
  model::ModelConfig biased = config_for_gpu(), normed = config_for_gpu(), dense = config_for_gpu(),
                     late = config_for_gpu(), adapted = config_for_gpu();
  late.dmc->method = "dms";
  adapted.dmc->decision_source = "adapter";
  late.dmc->delay = 9, late.dmc->window = 1;
  biased.attention_bias = true;
  normed.qk_norm = true;
  dense.dmc.reset();
  const RunnerOptions no_merging{.compression = {.policy = "dense"}};
  expect_same_runs(config_for_gpu(), DType::kF32, {});
  expect_same_runs(biased, DType::kF32, {.chunk = 16});
  expect_same_runs(normed, DType::kF32, {});
  expect_same_runs(dense, DType::kF32, {.compression = {.forced_cr = 3.0}});
  expect_same_runs(config_for_gpu(), DType::kF32, {.compression = {.cr = 2.0}});
  for (model::ModelConfig config : {small_gpt2_config(), small_bert_config()}) {
    config.head_dim = 64;
    expect_same_runs(config, config.post_norm ? DType::kBF16 : DType::kF32, {});
  }
  expect_same_runs(late, DType::kF32, {.chunk = 50});
  expect_same_runs(adapted, DType::kF32, {});
  // A decision could fall the other way where numbers are rounded, so there are none.
  expect_same_runs(config_for_gpu(), DType::kBF16, no_merging);
  expect_same_runs(biased, DType::kBF16, no_merging);
  expect_same_runs(biased, DType::kF16, no_merging);
  expect_same_runs(biased, DType::kI8, no_merging, 4);  // hidden_size 40: rows that are not aligned
  biased.hidden_size = 48;
  biased.intermediate_size = 64;
  expect_same_runs(biased, DType::kI8, no_merging, 4);
}

// So large that it is widened in two tiles, and with more rows than our own products take.
TEST(CudaDevice, MultipliesMatricesOf8BitsOfAnySize) {
  if (gpu() == nullptr) GTEST_SKIP() << "no GPU";
  constexpr int64_t kOutputs = 520, kInputs = 16 * 1024, kRows = 33;
  Rng rng(3);
  std::vector<std::byte> weights(kOutputs * kInputs), x(2 * kRows * kInputs);
  for (std::byte& byte : weights) byte = static_cast<std::byte>(rng.below(256));
  for (size_t i = 0; i < x.size(); i += 2) {
    const uint16_t bits = f32_to_bf16(static_cast<float>(rng.uniform()));
    std::memcpy(&x[i], &bits, sizeof(bits));
  }
  const std::vector<float> scales = random_numbers(kOutputs, 0.1, rng),
                           bias = random_numbers(kOutputs, 1.0, rng);
  const auto multiply = [&](kernels::cuda::Device& device) {
    const Buffer<std::byte> w(device, std::span<const std::byte>(weights)),
        rows(device, std::span<const std::byte>(x));
    const Buffer<float> s(device, std::span(scales)), b(device, std::span(bias)),
        y(device, kRows * kOutputs);
    device.linear({w.get(), kOutputs, kInputs, DType::kI8, s.get()}, b.get(),
                  {rows.get(), DType::kBF16}, kRows, y.get());
    return y.download();
  };
  HostDevice host;
  EXPECT_LE(relative_error(multiply(*gpu()), multiply(host)), 1e-5);
}

TEST(CudaDevice, DropsSlotsAsTheCpuInItsPlace) {
  if (gpu() == nullptr) GTEST_SKIP() << "no GPU";
  model::ModelConfig config = config_for_gpu();
  config.dmc.reset();
  for (const policy::Policy& policy : policy::policies()) {
    if (policy.least_budget == 0) continue;
    SCOPED_TRACE(policy.name);
    const PolicyOptions compression{.policy = std::string(policy.name), .budget = 36};
    expect_same_runs(config, DType::kF32, {.compression = compression, .chunk = 50}, 4);
  }
}

// One choice for each row of logits; rows differ in their options.
std::vector<int32_t> choose(kernels::cuda::Device& device, const std::vector<float>& logits,
                            int32_t vocab) {
  const auto rows = static_cast<int>(logits.size()) / vocab;
  std::vector<kernels::cuda::SamplingRow> sampling;
  for (int row = 0; row < rows; ++row) {
    sampling.push_back({.temperature = 0.3f * static_cast<float>(row % 5),
                        .top_k = row % 3 == 0 ? 0 : 40,
                        .top_p = row % 2 == 0 ? 0.95 : 1.0,
                        .seed = static_cast<uint64_t>(row)});
  }
  const auto count = static_cast<size_t>(rows);
  const Buffer<float> on(device, std::span(logits));
  const std::vector<int32_t> zeros(count);
  const Buffer<int32_t> in_use(device, std::span(zeros)), tokens(device, std::span(zeros)),
      positions(device, std::span(zeros));
  const Buffer<kernels::cuda::SamplingRow> options(device, std::span(std::as_const(sampling)));
  device.choose_tokens(on.get(), rows, vocab,
                       {in_use.get(), tokens.get(), positions.get(), options.get()});
  EXPECT_EQ(positions.download(), std::vector<int32_t>(count, 1));
  return tokens.download();
}

TEST(CudaDevice, ChoosesTokensFromALargeVocabulary) {
  if (gpu() == nullptr) GTEST_SKIP() << "no GPU";
  HostDevice host;
  constexpr int32_t kVocab = 32000;
  Rng rng(1);
  for (const double steps : {0.0, 1.0}) {  // above 0: many logits are equal
    std::vector<float> logits = random_numbers(int64_t{8} * kVocab, 8.0, rng);
    if (steps > 0.0) {
      for (float& x : logits) x = std::round(x);
    }
    EXPECT_EQ(choose(*gpu(), logits, kVocab), choose(host, logits, kVocab));
  }
}

TEST(CudaDevice, PagesThatRunOutAreAnErrorAndComeBack) {
  if (gpu() == nullptr) GTEST_SKIP() << "no GPU";
  model::ModelConfig config = config_for_gpu();
  config.dmc.reset();
  const auto model = random_model(config, DType::kF32, 1);
  DeviceRunner runner(upload_model(gpu(), model), {}, {.sequences = 2, .pages = 4 * 2});
  const SequenceId first = runner.add_sequence();
  EXPECT_THROW(engine::prefill(runner, first, random_text(*model, 100, 2)), Error);
  runner.release(first);
  EXPECT_EQ(runner.cache_bytes(), 0);
  EXPECT_NO_THROW(engine::prefill(runner, runner.add_sequence(), random_text(*model, 30, 3)));
}

}  // namespace
}  // namespace dmc::runtime
