// llama.cpp's decode attention on a Problem: the same graph, cache layout and strides.
#pragma once

#include "problem.h"

namespace dmc::peers {

struct GgmlOptions {
  const char* type = "f16";  // of the cache: f16 or q8_0
  bool flash = false;        // flash_attn_ext; else two products and a softmax (f16 only)
  bool huge_pages = false;
  int threads = 1;
};

std::unique_ptr<Attention> ggml_attention(const Problem& problem, const GgmlOptions& options);

}  // namespace dmc::peers
