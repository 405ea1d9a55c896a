#include "train/placement.h"

#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>

#include "base/error.h"
#include "ops/pool.h"
#include "policy/policy.h"
#include "train/stage.h"

namespace dmc::train {
namespace {

// Null: it compresses nothing.
const policy::Policy* policy_of(const TrainOptions& options) {
  if (options.stages.back().stage->name == "dense") return nullptr;
  return policy::find_policy(options.retrofit.method);
}

// Its index is the process's among those of its machine.
void require_gpu(const TrainOptions& options) {
  const int gpus = at::detail::getCUDAHooks().getNumGPUs(), wanted = device_of(options).index();
  if (wanted >= gpus) {
    throw unavailable("device", "this machine has GPUs 0 to " + std::to_string(gpus - 1) +
                                    ", and each process trains on one of its own; start at most " +
                                    std::to_string(gpus) +
                                    " here (--processes, torchrun's --nproc-per-node)");
  }
}

}  // namespace

at::Device device_of(const TrainOptions& options) { return at::Device(options.device); }

nn::Placement placement_of(const TrainOptions& options) {
  const bool rounds = options.precision.empty() ? options.device != "cpu"  // as fast as it can
                                                : options.precision == "bf16";
  return {device_of(options), rounds ? std::optional(at::kBFloat16) : std::nullopt};
}

void require_device(const TrainOptions& options) {
  if (options.device == "cpu") return;
  if (!at::hasCUDA()) {
    throw unavailable(
        "device",
        "the LibTorch that this program was built with sees no GPU here; it must be "
        "a CUDA build of it (`./run build cuda-train`), on a machine with an NVIDIA GPU and its "
        "driver");
  }
  require_gpu(options);
  const policy::Policy* const policy = policy_of(options);
  if (policy == nullptr || policy->carry == policy::Carry::kNothing) return;
  if (policy->delayed) {
    throw unavailable("device", "method " + options.retrofit.method +
                                    " trains on the CPU alone yet; take device cpu, or method dms");
  }
  if (!ops::can_pool_on_cuda()) {
    throw unavailable(
        "device",
        "cuda with method dmc needs our CUDA kernels, which this program was built without; "
        "`./run build cuda-train` makes one with them, or take method dms");
  }
}

}  // namespace dmc::train
