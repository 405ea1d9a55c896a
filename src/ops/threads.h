// One set of threads for LibTorch and for our kernels.
#pragma once

namespace dmc::ops {

// `count` cores for LibTorch's operators, and our parallel_for on the same threads. 0: all cores.
void set_threads(int count);

}  // namespace dmc::ops
