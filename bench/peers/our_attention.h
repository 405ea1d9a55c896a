// Our decode attention on a Problem: pages of 16 slots in random order, as after a long life.
#pragma once

#include <span>

#include "problem.h"

namespace dmc::peers {

// Slot formats that the kernels can read: f32, and what else they have.
std::span<const char* const> our_formats();

// `format` is one of our_formats().
std::unique_ptr<Attention> our_attention(const Problem& problem, const char* format,
                                         bool huge_pages);

}  // namespace dmc::peers
