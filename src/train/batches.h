// The tokens of every step: each row of a batch reads its own stream of documents, and each rank of
// a group has its share of the rows.
#pragma once

#include <vector>

#include "dist/group.h"
#include "text/corpus.h"
#include "train/options.h"

namespace dmc::train {

// Error(kInvalidArgument) naming --batch if so many ranks cannot have equally many rows, in parts.
void require_equal_shares(const TrainOptions& options, int ranks);

class Batches {
 public:
  using Position = text::TokenFeed::Position;

  // `corpus`, `tokenizer` and `group` must outlive this.
  Batches(const text::Corpus& corpus, const text::Tokenizer& tokenizer, int32_t separator,
          const TrainOptions& options, dist::Group& group);

  // This rank's rows of the next batch, [batch / ranks, length + 1] token ids on the CPU: inputs
  // and, shifted by one, targets.
  at::Tensor next();

  // Of all options.batch rows, so that a run may go on with another number of ranks. positions() is
  // a collective.
  std::vector<Position> positions() const;
  void seek(const std::vector<Position>& positions);

 private:
  dist::Group& group_;
  const at::Device device_;
  const int64_t rows_of_all_, length_, first_row_;
  std::vector<text::TokenFeed> feeds_;  // of this rank's rows
};

}  // namespace dmc::train
