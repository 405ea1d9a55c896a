// What takes a process's rights away before it runs code nobody vouches for (sandbox.h).
#pragma once

#include <linux/filter.h>

#include <filesystem>
#include <span>
#include <vector>

namespace dmc::sandbox {

// Descriptors below this are laid out anew between fork and exec; those to be kept lie above.
constexpr int kReservedDescriptors = 7;

// Everything is prepared where memory may be allocated; apply() is then called between fork and
// exec, where it may not.
class Isolation {
 public:
  // The process may read and execute `readable` files and folders, and no other.
  // Error(kInternal) if the kernel has no Landlock.
  explicit Isolation(std::span<const std::filesystem::path> readable);
  ~Isolation();
  Isolation(const Isolation&) = delete;
  Isolation& operator=(const Isolation&) = delete;

  // Gives up capabilities, files and system calls for good. The result is a descriptor, closed by
  // exec, at which calls that take a path wait for who answers them (seccomp_unotify(2)); -1, with
  // errno set, if that failed: then the process must end. Allowed in a signal handler.
  int apply() const noexcept;

 private:
  int ruleset_ = -1;
  std::vector<sock_filter> filter_;
};

}  // namespace dmc::sandbox
