#include "train/batches.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"
#include "base/rng.h"
#include "train/placement.h"

namespace dmc::train {

void require_equal_shares(const TrainOptions& options, int ranks) {
  const int64_t shares = ranks * options.accumulate;
  if (options.batch % shares == 0) return;
  std::string by;
  if (ranks > 1) by += std::to_string(ranks) + " processes";
  if (ranks > 1 && options.accumulate > 1) by += " in ";
  if (options.accumulate > 1) by += std::to_string(options.accumulate) + " parts";
  throw invalid_argument("batch", std::to_string(options.batch) +
                                      " sequences cannot be shared by " + by +
                                      "; give a multiple of " + std::to_string(shares));
}

// Neighbouring rows of one stream would be parts of one file, and a batch that much alike makes a
// poor gradient.
Batches::Batches(const text::Corpus& corpus, const text::Tokenizer& tokenizer, int32_t separator,
                 const TrainOptions& options, dist::Group& group)
    : group_(group),
      device_(device_of(options)),
      rows_of_all_(options.batch),
      length_(options.length),
      first_row_(group.rank() * (options.batch / group.size())) {
  for (int64_t row = 0; row < rows_of_all_ / group.size(); ++row) {
    feeds_.emplace_back(corpus, tokenizer, separator,
                        random_bits(options.seed, 0, static_cast<uint64_t>(first_row_ + row)));
  }
}

at::Tensor Batches::next() {
  const at::Tensor batch = at::empty({static_cast<int64_t>(feeds_.size()), length_ + 1}, at::kLong);
  int64_t* next = batch.mutable_data_ptr<int64_t>();
  std::vector<int32_t> ids(static_cast<size_t>(length_ + 1));
  for (text::TokenFeed& feed : feeds_) {
    feed.read(ids);
    next = std::copy(ids.begin(), ids.end(), next);
  }
  return batch;
}

std::vector<Batches::Position> Batches::positions() const {
  at::Tensor all = at::zeros({rows_of_all_, 3}, at::kLong);
  int64_t* next = all.mutable_data_ptr<int64_t>() + first_row_ * 3;
  for (const text::TokenFeed& feed : feeds_) {
    const Position at = feed.position();
    for (const int64_t number : {at.epoch, at.document, at.offset}) *next++ = number;
  }
  all = all.to(device_);
  group_.sum(all);  // every row is zero on all ranks but one
  group_.settle();
  all = all.cpu();
  std::vector<Position> result;
  const int64_t* numbers = all.const_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows_of_all_; ++row, numbers += 3) {
    result.push_back({numbers[0], numbers[1], numbers[2]});
  }
  return result;
}

void Batches::seek(const std::vector<Position>& positions) {
  for (size_t row = 0; row < feeds_.size(); ++row) {
    feeds_[row].seek(positions.at(static_cast<size_t>(first_row_) + row));
  }
}

}  // namespace dmc::train
