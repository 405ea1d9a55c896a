#include "runtime/measure.h"

#include <algorithm>
#include <span>

#include "base/error.h"
#include "base/human.h"
#include "base/stopwatch.h"

namespace dmc::runtime {
namespace {

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// A batch that shares nothing, as independent requests would: forks share pages and a shared page
// would be read from the processor's cache.
std::vector<engine::Sequence> fill_batch(Runner& runner, std::span<const int32_t> prompt,
                                         int64_t batch, double* prefill_seconds) {
  std::vector<engine::Sequence> sequences;
  for (int64_t i = 0; i < batch; ++i) {
    sequences.push_back(engine::Sequence::add(runner));
    const Stopwatch watch;
    engine::prefill(runner, sequences.back().id(), prompt);
    if (i == 0) *prefill_seconds = watch.seconds();
  }
  return sequences;
}

// Memory is touched for the first time, which takes longer than a short prompt itself.
void warm_up(Runner& runner, std::span<const int32_t> text) {
  constexpr size_t kTokens = 512;
  const auto sequence = engine::Sequence::add(runner);
  engine::prefill(runner, sequence.id(), text.first(std::min(text.size(), kTokens)));
}

struct Timing {
  double prefill_seconds = 0.0, decode_seconds = 0.0;
};

Timing time_once(Runner& runner, std::span<const int32_t> prompt, int64_t decode_tokens,
                 Measurement* out) {
  Timing timing;
  const auto sequences = fill_batch(runner, prompt, out->batch, &timing.prefill_seconds);
  out->cache_bytes = runner.cache_bytes();
  out->compression_ratio = runner.compression_ratio(sequences[0].id());
  std::vector<engine::SequenceId> ids;
  for (const engine::Sequence& sequence : sequences) ids.push_back(sequence.id());
  std::vector<int32_t> next(ids.size());
  const Stopwatch watch;
  for (int64_t step = 0; step < decode_tokens; ++step) {
    std::ranges::fill(next, prompt[static_cast<size_t>(step) % prompt.size()]);
    engine::decode(runner, ids, next);
  }
  timing.decode_seconds = watch.seconds();
  return timing;
}

// Sequences of such a prompt that a cache of so many bytes holds.
int64_t fitting_batch(Runner& runner, std::span<const int32_t> prompt, int64_t bytes) {
  const auto probe = engine::Sequence::add(runner);
  engine::prefill(runner, probe.id(), prompt);
  const int64_t needed = runner.cache_bytes();
  if (needed > bytes) {
    throw invalid_argument("kv_budget",
                           "a sequence of " + std::to_string(prompt.size()) + " tokens takes " +
                               human_bytes(static_cast<double>(needed)) + " of cache; give more");
  }
  return bytes / needed;
}

}  // namespace

std::vector<Measurement> measure(const std::vector<Subject>& subjects,
                                 const std::vector<int32_t>& text, const MeasureOptions& options,
                                 const std::function<void(int64_t, int64_t)>& on_point) {
  const int64_t longest = std::ranges::max(options.contexts);
  DMC_CHECK(static_cast<int64_t>(text.size()) >= longest);
  std::vector<std::unique_ptr<Runner>> runners;
  const auto sequences = static_cast<int>(std::ranges::max(options.batches));
  for (const Subject& subject : subjects) {
    RunnerOptions runner = subject.options;
    runner.max_positions = longest + options.decode_tokens;
    runners.push_back(subject.model.make_runner(runner, sequences));
    warm_up(*runners.back(), std::span(text).first(static_cast<size_t>(longest)));
  }
  std::vector<Measurement> results;
  const std::vector<int64_t> batches =
      options.kv_budget > 0 ? std::vector<int64_t>{0} : options.batches;
  const auto total = static_cast<int64_t>(options.contexts.size() * batches.size());
  int64_t done = 0;
  for (int64_t context : options.contexts) {
    for (int64_t batch : batches) {
      const std::span<const int32_t> prompt(text.data(), static_cast<size_t>(context));
      std::vector<Measurement> point(runners.size());
      for (size_t i = 0; i < runners.size(); ++i) {
        point[i].subject = subjects[i].name;
        point[i].context = context;
        point[i].batch = batch > 0 ? batch : fitting_batch(*runners[i], prompt, options.kv_budget);
      }
      std::vector<std::vector<double>> prefill(runners.size()), decode(runners.size());
      for (int repeat = 0; repeat < options.repeats; ++repeat) {
        for (size_t i = 0; i < runners.size(); ++i) {
          const Timing timing = time_once(*runners[i], prompt, options.decode_tokens, &point[i]);
          prefill[i].push_back(timing.prefill_seconds);
          decode[i].push_back(timing.decode_seconds);
        }
      }
      for (size_t i = 0; i < runners.size(); ++i) {
        point[i].prefill_tokens_per_second = static_cast<double>(context) / median(prefill[i]);
        point[i].decode_tokens_per_second =
            static_cast<double>(options.decode_tokens * point[i].batch) / median(decode[i]);
        results.push_back(point[i]);
      }
      on_point(++done, total);
    }
  }
  return results;
}

}  // namespace dmc::runtime
