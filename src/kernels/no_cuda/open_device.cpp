// In the place of the CUDA kernels where the program is built without them.
#include "base/error.h"
#include "kernels/cuda/device.h"

namespace dmc::kernels::cuda {

std::shared_ptr<Device> open_cuda_device() {
  throw unavailable("device",
                    "this program was built without CUDA; `./run build cuda` makes one with it, "
                    "build-cuda/bin/dmc");
}

}  // namespace dmc::kernels::cuda
