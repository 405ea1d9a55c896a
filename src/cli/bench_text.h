// Real text for measurements.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "runtime/weights.h"

namespace dmc::cli {

// `count` tokens of held-out text (of `data`, or of the built-in corpus); it starts over when there
// is not enough.
std::vector<int32_t> bench_text(const std::vector<std::filesystem::path>& data,
                                const runtime::Model& model, const std::filesystem::path& model_dir,
                                int64_t count);

}  // namespace dmc::cli
