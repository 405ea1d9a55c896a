#include "sandbox/isolation.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>

#include "base/error.h"

namespace dmc::sandbox {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#endif

// What an interpreter needs to start, read its modules and compute. A call not listed fails with
// EPERM, so a new one in a later Python shows up as an exception and not as a hole.
constexpr int kAllowedCalls[] = {
    // files that are open
    SYS_read,
    SYS_write,
    SYS_close,
    SYS_lseek,
    SYS_pread64,
    SYS_fstat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_dup,
    SYS_sendmsg,  // hands over the listener below; afterwards there is no socket to call it with
    // memory
    SYS_brk,
    SYS_mmap,
    SYS_munmap,
    SYS_mremap,
    SYS_mprotect,
    SYS_madvise,
    // the process itself
    SYS_exit,
    SYS_exit_group,
    SYS_futex,
    SYS_set_tid_address,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sigaltstack,
    SYS_getpid,
    SYS_gettid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getrusage,
    SYS_sched_getaffinity,
    SYS_sched_yield,
    // facts
    SYS_uname,
    SYS_getrandom,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_clock_nanosleep,
    SYS_nanosleep,
    SYS_restart_syscall,
#if defined(__x86_64__)
    SYS_arch_prctl,
    SYS_time,
#endif
};

// Calls that take a path: the parent decides (path_gate.h). Landlock alone would let them tell
// which files there are.
constexpr int kSupervisedCalls[] = {
    SYS_execve,    SYS_openat,     SYS_newfstatat, SYS_statx, SYS_readlinkat,
    SYS_faccessat, SYS_faccessat2,
#if defined(__x86_64__)
    SYS_access,    SYS_readlink,   SYS_stat,       SYS_lstat, SYS_open,
#endif
};

// Calls that are allowed while their argument `index` is at most `most`.
struct LimitedCall {
  int number;
  uint32_t index, most;
};
constexpr LimitedCall kLimitedCalls[] = {
    {SYS_fcntl, 1, F_GETFL},  // not F_SETFL and F_SETOWN, which make signals for others
    {SYS_prlimit64, 0, 0},    // its own limits alone, which it can only lower
};

uint32_t low_word_of_argument(uint32_t index) {  // both architectures are little-endian
  return static_cast<uint32_t>(offsetof(seccomp_data, args)) + 8 * index;
}

std::vector<sock_filter> make_filter() {
  const sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  const sock_filter ask = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
  const sock_filter refuse = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
  const auto load = [](uint32_t offset) -> sock_filter {
    return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset);
  };
  std::vector<sock_filter> filter = {
      load(offsetof(seccomp_data, arch)), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), load(offsetof(seccomp_data, nr))};
  const auto answer = [&](int number, const sock_filter& with) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1));
    filter.push_back(with);
  };
  for (int number : kAllowedCalls) answer(number, allow);
  for (int number : kSupervisedCalls) answer(number, ask);
  for (const LimitedCall& call : kLimitedCalls) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(call.number), 0, 4));
    filter.push_back(load(low_word_of_argument(call.index)));
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, call.most, 1, 0));
    filter.push_back(allow);
    filter.push_back(refuse);
  }
  filter.push_back(refuse);
  return filter;
}

// All rights over files that this kernel can take away; the headers may be older than the kernel.
uint64_t all_file_rights(long version) {
  if (version >= 5) return (uint64_t{1} << 16) - 1;
  if (version >= 3) return (uint64_t{1} << 15) - 1;
  return version == 2 ? (uint64_t{1} << 14) - 1 : (uint64_t{1} << 13) - 1;
}

void allow_reading(int ruleset, const std::filesystem::path& path) {
  const int file = open(path.c_str(), O_PATH | O_CLOEXEC);
  if (file < 0) return;  // what is not there need not be readable
  struct stat facts {};
  fstat(file, &facts);
  landlock_path_beneath_attr rule{};
  rule.parent_fd = file;
  rule.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_EXECUTE;
  if (S_ISDIR(facts.st_mode)) rule.allowed_access |= LANDLOCK_ACCESS_FS_READ_DIR;
  const long failed = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  close(file);
  if (failed != 0) {
    throw internal_error(path.string() +
                         ": cannot be opened to the sandbox: " + std::strerror(errno));
  }
}

bool drop_capabilities() noexcept {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[2] = {};
  return syscall(SYS_capset, &header, none) == 0;
}

}  // namespace

Isolation::Isolation(std::span<const std::filesystem::path> readable) : filter_(make_filter()) {
  const long version =
      syscall(SYS_landlock_create_ruleset, nullptr, size_t{0}, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) {
    throw internal_error(
        "generated code cannot be run: this machine's kernel has no Landlock (Linux 5.13 or later) "
        "to isolate it with");
  }
  landlock_ruleset_attr attributes{};
  attributes.handled_access_fs = all_file_rights(version);
  const auto ruleset = static_cast<int>(
      syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes.handled_access_fs), 0));
  ruleset_ = fcntl(ruleset, F_DUPFD_CLOEXEC, kReservedDescriptors);
  if (ruleset >= 0) close(ruleset);
  if (ruleset_ < 0) {
    throw internal_error(std::string("generated code cannot be run: Landlock refused: ") +
                         std::strerror(errno));
  }
  for (const auto& path : readable) allow_reading(ruleset_, path);
}

Isolation::~Isolation() {
  if (ruleset_ >= 0) close(ruleset_);
}

int Isolation::apply() const noexcept {
  const sock_fprog program = {static_cast<unsigned short>(filter_.size()),
                              const_cast<sock_filter*>(filter_.data())};
  const bool ready = drop_capabilities() && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                     syscall(SYS_landlock_restrict_self, ruleset_, 0) == 0;
  if (!ready) return -1;
  return static_cast<int>(
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

}  // namespace dmc::sandbox
