#include "sandbox/path_gate.h"

#include <fcntl.h>
#include <linux/limits.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

namespace dmc::sandbox {
namespace {

// Where the path stands among a call's arguments, and the folder's descriptor before it.
struct PathCall {
  int number;
  bool at;  // the folder is argument 0 and the path argument 1
};
constexpr PathCall kPathCalls[] = {
    {SYS_openat, true},     {SYS_newfstatat, true}, {SYS_statx, true},
    {SYS_readlinkat, true}, {SYS_faccessat, true},  {SYS_faccessat2, true},
#if defined(__x86_64__)
    {SYS_access, false},    {SYS_readlink, false},  {SYS_stat, false},
    {SYS_lstat, false},     {SYS_open, false},
#endif
};

constexpr size_t kPage = 4096;  // reads that cross a page may fail at what nobody asked for

// The string at `address` of another process; nothing if it cannot be read or has no end.
std::optional<std::string> string_of(pid_t process, uint64_t address) {
  std::string text;
  std::array<char, kPage> part{};
  while (text.size() <= PATH_MAX) {
    const size_t size = kPage - address % kPage;
    const iovec here{part.data(), size};
    const iovec there{reinterpret_cast<void*>(address), size};
    const ssize_t got = process_vm_readv(process, &here, 1, &there, 1, 0);
    if (got <= 0) return std::nullopt;
    const auto end = std::find(part.begin(), part.begin() + got, '\0');
    text.append(part.begin(), end);
    if (end != part.begin() + got) return text;
    address += static_cast<uint64_t>(got);
  }
  return std::nullopt;
}

bool climbs(std::string_view path) {
  for (size_t at = path.find(".."); at != std::string_view::npos; at = path.find("..", at + 1)) {
    const bool begins = at == 0 || path[at - 1] == '/';
    const bool ends = at + 2 == path.size() || path[at + 2] == '/';
    if (begins && ends) return true;
  }
  return false;
}

// Without doubled slashes, "." and a slash at the end.
std::string plain(std::string_view path) {
  std::string result;
  while (!path.empty()) {
    const std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(std::min(path.size(), name.size() + 1));
    if (!name.empty() && name != ".") result.append("/").append(name);
  }
  return result.empty() ? "/" : result;
}

bool is_beneath(std::string_view path, std::string_view folder) {
  return path.starts_with(folder) &&
         (path.size() == folder.size() || folder == "/" || path[folder.size()] == '/');
}

}  // namespace

PathGate::PathGate(std::vector<std::filesystem::path> readable) {
  for (const auto& path : readable) readable_.push_back(plain(path.string()));
}

bool PathGate::lets_through(std::string_view path) const {
  if (!path.starts_with('/') || climbs(path)) return false;
  const std::string wanted = plain(path);
  return std::ranges::any_of(readable_, [&](const std::string& allowed) {
    return is_beneath(wanted, allowed) || is_beneath(allowed, wanted);
  });
}

// 0, or the error that the call ends with.
int PathGate::decide(const seccomp_notif& call, bool* may_execute) const {
  if (call.data.nr == SYS_execve) return std::exchange(*may_execute, false) ? 0 : EPERM;
  const auto known = std::ranges::find(kPathCalls, call.data.nr, &PathCall::number);
  if (known == std::end(kPathCalls)) return EPERM;
  const auto path = string_of(static_cast<pid_t>(call.pid), call.data.args[known->at ? 1 : 0]);
  if (!path) return EFAULT;
  const bool of_folder = known->at && static_cast<int>(call.data.args[0]) != AT_FDCWD;
  // A descriptor is of what could be opened; an empty path means that itself.
  if (of_folder && !path->starts_with('/')) return climbs(*path) ? ENOENT : 0;
  return lets_through(path->starts_with('/') ? *path : "/" + *path) ? 0 : ENOENT;
}

void PathGate::answer(int listener, bool* may_execute) const {
  // The kernel's structures may be longer than those of the headers.
  alignas(8) std::array<std::byte, 1024> asked{}, answered{};
  auto* const call = reinterpret_cast<seccomp_notif*>(asked.data());
  auto* const response = reinterpret_cast<seccomp_notif_resp*>(answered.data());
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call) != 0) return;  // it was killed meanwhile
  const int error = decide(*call, may_execute);
  response->id = call->id;
  response->error = -error;
  response->flags = error == 0 ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
  ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response);
}

}  // namespace dmc::sandbox
