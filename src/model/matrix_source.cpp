#include "model/matrix_source.h"

#include <algorithm>

#include "base/error.h"
#include "base/parallel.h"

namespace dmc::model {

void MatrixSource::read_rows(int64_t first, int64_t count, float* to) const {
  DMC_CHECK(first >= 0 && count >= 0 && first <= rows() - count);
  turned_ ? read_across(first, count, to) : read_lines(first, count, to);
}

void MatrixSource::read_columns(int64_t first, int64_t count, float* to) const {
  DMC_CHECK(first >= 0 && count >= 0 && first <= columns() - count);
  turned_ ? read_lines(first, count, to) : read_across(first, count, to);
}

void MatrixSource::read_all(float* to) const {
  constexpr int64_t kGrain = 64;
  parallel_for(0, rows(), kGrain, [&](int64_t begin, int64_t end) {
    read_rows(begin, end - begin, to + begin * columns());
  });
}

void MatrixSource::read_numbers(int64_t, int8_t*, float*, float*) const {
  DMC_CHECK(!"numbers with scales");
}

const std::byte* MatrixSource::floats(int64_t) const { return nullptr; }

void MatrixSource::read_lines(int64_t first, int64_t count, float* to) const {
  for (int64_t i = 0; i < count; ++i) widen(first + i, 0, width_, to + i * width_);
}

// Every line has a strip of what is wanted, side by side: it is widened and turned.
void MatrixSource::read_across(int64_t first, int64_t count, float* to) const {
  std::vector<float> strip(static_cast<size_t>(count));
  for (int64_t line = 0; line < lines_; ++line) {
    widen(line, first, count, strip.data());
    for (int64_t i = 0; i < count; ++i) to[i * lines_ + line] = strip[static_cast<size_t>(i)];
  }
}

}  // namespace dmc::model
