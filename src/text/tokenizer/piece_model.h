// The models that turn a piece of text (a word, or a whole text where nothing splits it) into ids.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/work.h"

namespace dmc::text {

class PieceModel {
 public:
  virtual ~PieceModel() = default;
  // Appends the ids of `piece`, valid UTF-8 and not empty. Safe to call from many threads.
  // Error(kData) if that takes more than `work` has left.
  virtual void encode(std::string_view piece, Work& work, std::vector<int32_t>* ids) const = 0;
  // What encode() appends for a text that it has no token for; none: it always has one, or drops
  // it.
  virtual std::optional<int32_t> unknown() const = 0;
};

}  // namespace dmc::text
