// Sequences on a device that share pages, drop slots and run out of pages, by HostDevice against
// DecoderRunner.
#include <gtest/gtest.h>

#include "base/error.h"
#include "runtime/device/device_pair_testing.h"

namespace dmc::runtime {
namespace {

using engine::SequenceId;

TEST(DeviceSequences, AForkGoesItsOwnWay) {
  const auto model = random_model(dmc_config(), DType::kF32, 80);
  Pair pair(model);
  const std::vector<int32_t> prompt = random_text(*model, 90, 81);
  const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  engine::prefill(pair.cpu, a, prompt);
  engine::prefill(pair.device, b, prompt);
  const SequenceId a2 = pair.cpu.fork(a), b2 = pair.device.fork(b);
  EXPECT_EQ(pair.device.slots(b2), pair.cpu.slots(a2));
  EXPECT_GT(pair.device.compression_ratio(b2), 1.2) << "these models do merge";
  for (int step = 0; step < 40; ++step) {
    const auto one = random_text(*model, 1, 200 + step), two = random_text(*model, 1, 300 + step);
    expect_near(engine::decode(pair.device, {&b, 1}, one), engine::decode(pair.cpu, {&a, 1}, one),
                1e-3);
    expect_near(engine::decode(pair.device, {&b2, 1}, two), engine::decode(pair.cpu, {&a2, 1}, two),
                1e-3);
    if (HasFatalFailure()) return;
  }
  pair.device.release(b);
  const auto last = random_text(*model, 1, 400);
  expect_near(engine::decode(pair.device, {&b2, 1}, last), engine::decode(pair.cpu, {&a2, 1}, last),
              1e-3);
}

TEST(DeviceSequences, ForksSharePagesUntilTheyWrite) {
  for (const uint64_t seed : {85, 185, 285}) expect_same_forks(dmc_config(), {}, seed);
}

TEST(DeviceSequences, ForksDropSlotsOfSharedPagesAlone) {
  for (const uint64_t seed : {86, 186, 286}) expect_same_forks(dms_config(11), {}, seed);
}

TEST(DeviceSequences, PagesOfDroppedSlotsComeBackWhileTheTextRuns) {
  const auto model = random_model(dms_config(8), DType::kF32, 180);
  Pair pair(model, {}, {.sequences = 1});
  const SequenceId id = pair.device.add_sequence();
  const int64_t empty = pair.device.cache_bytes();
  engine::prefill(pair.device, id, random_text(*model, 10, 181));
  for (int step = 0; step < 250; ++step) {
    const auto token = random_text(*model, 1, 900 + step);
    engine::decode(pair.device, {&id, 1}, token);
  }
  const std::vector<int64_t> slots = pair.device.slots(id);
  int64_t pages = 0;
  for (const int64_t count : slots) pages += (count - 1 + 15) / 16;
  EXPECT_GT(pair.device.compression_ratio(id), 1.3) << "these models do drop tokens";
  const int64_t page_bytes = 16 * 2 * model->config.head_dim * 4;
  EXPECT_EQ(pair.device.cache_bytes() - empty, pages * page_bytes) << "none is held for nothing";
}

// A fork takes no page; what it writes then does.
TEST(DeviceSequences, ForksThatFindNoPageToWriteOnFailAlone) {
  const auto model = random_model(small_config(), DType::kF32, 88);
  Pair pair(model, {}, {.sequences = 3, .pages = 4 * 2});
  const std::vector<int32_t> prompt =
      random_text(*model, 24, 89);  // 2 pages a stream, one not full
  const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  engine::prefill(pair.cpu, a, prompt);
  engine::prefill(pair.device, b, prompt);
  const SequenceId fork = pair.device.fork(b);
  EXPECT_THROW(engine::decode(pair.device, {&fork, 1}, {prompt.data(), 1}), Error);
  EXPECT_THROW(pair.device.copy(b), Error);
  pair.device.release(fork);
  for (int step = 0; step < 6; ++step) {
    const auto next = random_text(*model, 1, 700 + step);
    expect_near(engine::decode(pair.device, {&b, 1}, next), engine::decode(pair.cpu, {&a, 1}, next),
                1e-3);
  }
}

TEST(DeviceSequences, WithoutPagesACallFailsAndOthersGoOn) {
  const auto model = random_model(small_config(), DType::kF32, 90);
  Pair pair(model, {}, {.sequences = 3, .pages = 4 * 5});  // 5 pages for each of 4 streams
  const std::vector<int32_t> prompt = random_text(*model, 40, 91);
  const SequenceId a = pair.cpu.add_sequence(), b = pair.device.add_sequence();
  engine::prefill(pair.cpu, a, prompt);
  engine::prefill(pair.device, b, prompt);  // 3 pages a stream

  const SequenceId greedy = pair.device.add_sequence();
  EXPECT_THROW(engine::prefill(pair.device, greedy, prompt), Error);
  pair.device.release(greedy);
  const SequenceId slow = pair.device.add_sequence();
  engine::prefill(pair.device, slow,
                  random_text(*model, 32, 92));  // the last two pages of each stream
  const std::span<const int32_t> token(prompt.data(), 1);
  const auto go_on = [&] {
    for (int step = 0; step < 20; ++step) engine::decode(pair.device, {&slow, 1}, token);
  };
  EXPECT_THROW(go_on(), Error);
  EXPECT_THROW(pair.device.copy(b), Error);
  pair.device.release(slow);

  for (int step = 0; step < 30; ++step) {
    const auto next = random_text(*model, 1, 500 + step);
    expect_near(engine::decode(pair.device, {&b, 1}, next), engine::decode(pair.cpu, {&a, 1}, next),
                1e-3);
    if (HasFatalFailure()) return;
  }
}

TEST(DeviceSequences, ReleasedSequencesLeaveNothing) {
  const auto model = random_model(dmc_config(), DType::kF32, 95);
  Pair pair(model, {}, {.sequences = 2});
  for (int round = 0; round < 5; ++round) {
    EXPECT_EQ(pair.device.cache_bytes(), 0);
    const SequenceId one = pair.device.add_sequence();
    engine::prefill(pair.device, one, random_text(*model, 100, 96 + round));
    const SequenceId two = pair.device.fork(one);
    EXPECT_GT(pair.device.cache_bytes(), 0);
    EXPECT_THROW(pair.device.add_sequence(), Error) << "both rows are taken";
    pair.device.release(one);
    pair.device.release(two);
  }
}

}  // namespace
}  // namespace dmc::runtime
