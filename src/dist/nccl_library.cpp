#include "dist/nccl_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"

namespace dmc::dist {
namespace {

constexpr const char* kName = "libnccl.so.2";

template <class Function>
void find(void* library, const char* name, Function& function) {
  void* const found = dlsym(library, name);
  if (found == nullptr) throw internal_error(std::string(kName) + " has no function " + name);
  function = reinterpret_cast<Function>(found);
}

// It stays loaded: CUDA does not survive its unloading.
NcclLibrary load() {
  void* const library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw usage_error(std::string("--device cuda: ") + kName +
                      ", through which GPUs exchange gradients, was not found; it comes with "
                      "PyTorch for CUDA, add its folder to LD_LIBRARY_PATH");
  }
  NcclLibrary result{};
  find(library, "ncclGetUniqueId", result.get_unique_id);
  find(library, "ncclCommInitRank", result.init_rank);
  find(library, "ncclCommDestroy", result.destroy);
  find(library, "ncclCommAbort", result.abort);
  find(library, "ncclCommGetAsyncError", result.get_async_error);
  find(library, "ncclGetErrorString", result.error_string);
  find(library, "ncclAllReduce", result.all_reduce);
  find(library, "ncclReduce", result.reduce);
  find(library, "ncclBroadcast", result.broadcast);
  return result;
}

}  // namespace

const NcclLibrary& nccl() {
  static const NcclLibrary library = load();  // tried again after a failure
  return library;
}

}  // namespace dmc::dist
