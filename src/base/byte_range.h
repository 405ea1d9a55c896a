// A stretch of a text.
#pragma once

#include <cstddef>

namespace dmc {

struct ByteRange {
  size_t begin, end;  // end is one past the last byte
  bool operator==(const ByteRange&) const = default;
};

}  // namespace dmc
