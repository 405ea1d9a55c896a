// Our decode attention on a Problem. Pages are those of the cache: of 16 slots, in runs of four
// that lie anywhere.
#pragma once

#include "base/dtype.h"
#include "problem.h"

namespace dmc::peers {

// `format` is of the slots: f32, f16, bf16 or 8 bits.
std::unique_ptr<Attention> our_attention(const Problem& problem, DType format, bool huge_pages);

}  // namespace dmc::peers
