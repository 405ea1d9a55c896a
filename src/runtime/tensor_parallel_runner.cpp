#include "runtime/tensor_parallel_runner.h"

#include <algorithm>

namespace dmc::runtime {

using engine::SequenceId;

TensorParallelRunner::TensorParallelRunner(const std::vector<std::shared_ptr<const Model>>& shards,
                                           const RunnerOptions& options,
                                           std::vector<std::unique_ptr<comm::Group>> groups)
    : threads_(std::move(groups)) {
  DMC_CHECK(threads_.size() == std::ssize(shards));
  RunnerOptions of_rank = options;
  of_rank.max_pages = options.max_pages / std::ssize(shards);
  if (options.max_pages > 0 && of_rank.max_pages == 0) of_rank.max_pages = 1;
  for (int rank = 0; rank < threads_.size(); ++rank) {
    runners_.push_back(std::make_unique<DecoderRunner>(shards[static_cast<size_t>(rank)], of_rank,
                                                       threads_.group(rank)));
    of_rank.cancelled = nullptr;  // asked by the first alone, on the caller's thread
  }
  if (ranks() == 1 || !policy().layer_wide) return;
  throw invalid_argument("policy", std::string(policy().name) +
                                       " compares the heads of a layer, which tensor parallelism "
                                       "shares out; give another policy, or one rank");
}

TensorParallelRunner::TensorParallelRunner(const std::vector<std::shared_ptr<const Model>>& shards,
                                           const RunnerOptions& options)
    : TensorParallelRunner(shards, options, comm::thread_groups(static_cast<int>(shards.size()))) {}

// Ranks number their sequences alike, as they get the same calls.
SequenceId TensorParallelRunner::add_sequence() {
  const SequenceId id = runners_.front()->add_sequence();
  for (size_t i = 1; i < runners_.size(); ++i) DMC_CHECK(runners_[i]->add_sequence() == id);
  return id;
}

SequenceId TensorParallelRunner::fork(SequenceId parent) {
  const SequenceId id = runners_.front()->fork(parent);
  for (size_t i = 1; i < runners_.size(); ++i) DMC_CHECK(runners_[i]->fork(parent) == id);
  return id;
}

void TensorParallelRunner::release(SequenceId sequence) {
  for (const auto& runner : runners_) runner->release(sequence);
}

void TensorParallelRunner::hold_ratio(SequenceId sequence, double cr) {
  for (const auto& runner : runners_) runner->hold_ratio(sequence, cr);
}

template <class Pages>
int64_t TensorParallelRunner::fewest(const Pages& pages) const {
  int64_t fewest = kNoLimit;
  for (const auto& runner : runners_) fewest = std::min(fewest, pages(*runner));
  return fewest == kNoLimit ? kNoLimit : fewest * ranks();
}

int64_t TensorParallelRunner::free_pages() const {
  return fewest([](const DecoderRunner& runner) { return runner.free_pages(); });
}

int64_t TensorParallelRunner::total_pages() const {
  return fewest([](const DecoderRunner& runner) { return runner.total_pages(); });
}

int64_t TensorParallelRunner::most_pages(SequenceId sequence, int64_t tokens,
                                         int64_t at_once) const {
  int64_t most = 0;
  for (const auto& runner : runners_) {
    most = std::max(most, runner->most_pages(sequence, tokens, at_once));
  }
  return most * ranks();
}

int64_t TensorParallelRunner::pages_of(SequenceId sequence) const {
  int64_t pages = 0;
  for (const auto& runner : runners_) pages += runner->pages_of(sequence);
  return pages;
}

std::vector<int64_t> TensorParallelRunner::slots(SequenceId sequence) const {
  const int64_t layers = model().config.num_layers;
  std::vector<std::vector<int64_t>> of_ranks;
  for (const auto& runner : runners_) of_ranks.push_back(runner->slots(sequence));
  std::vector<int64_t> slots;
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (const std::vector<int64_t>& of_rank : of_ranks) {
      const int64_t heads = std::ssize(of_rank) / layers;
      slots.insert(slots.end(), of_rank.begin() + layer * heads,
                   of_rank.begin() + (layer + 1) * heads);
    }
  }
  return slots;
}

int64_t TensorParallelRunner::cache_bytes() const {
  int64_t bytes = 0;
  for (const auto& runner : runners_) bytes += runner->cache_bytes();
  return bytes;
}

void TensorParallelRunner::run(const Pass& pass, float* logits) {
  threads_.run([&](int rank) {
    runners_[static_cast<size_t>(rank)]->run(pass, rank == 0 ? logits : nullptr);
  });
}

void TensorParallelRunner::advance(SequenceId sequence, int64_t tokens) {
  for (const auto& runner : runners_) runner->advance(sequence, tokens);
}

void TensorParallelRunner::end_prompt(SequenceId sequence) {
  for (const auto& runner : runners_) runner->end_prompt(sequence);
}

}  // namespace dmc::runtime
