#include "dist/nccl_library.h"

#include <dlfcn.h>

#include <string>

#include "base/error.h"
#include "base/loaded_library.h"

namespace dmc::dist {
namespace {

constexpr const char* kName = "libnccl.so.2";

// It stays loaded: CUDA does not survive its unloading.
NcclLibrary load() {
  void* const library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw unavailable("device",
                      std::string("cuda needs ") + kName +
                          ", through which GPUs exchange gradients, was not found; it comes with "
                          "PyTorch for CUDA, add its folder to LD_LIBRARY_PATH");
  }
  const auto find = [library](const char* name, auto& function) {
    find_function(library, kName, name, function);
  };
  NcclLibrary result{};
  find("ncclGetUniqueId", result.get_unique_id);
  find("ncclCommInitRank", result.init_rank);
  find("ncclCommDestroy", result.destroy);
  find("ncclCommAbort", result.abort);
  find("ncclCommGetAsyncError", result.get_async_error);
  find("ncclGetErrorString", result.error_string);
  find("ncclAllReduce", result.all_reduce);
  find("ncclReduce", result.reduce);
  find("ncclBroadcast", result.broadcast);
  return result;
}

}  // namespace

const NcclLibrary& nccl() {
  static const NcclLibrary library = load();  // tried again after a failure
  return library;
}

}  // namespace dmc::dist
