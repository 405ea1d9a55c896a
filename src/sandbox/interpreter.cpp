#include "sandbox/interpreter.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace dmc::sandbox {
namespace {

constexpr int kDescriptors = 6;  // 0 to 5, as Wiring has them
static_assert(kDescriptors < kReservedDescriptors);

Error not_isolated(int error) {
  return internal_error(std::string("generated code cannot be isolated here: ") +
                        std::strerror(error));
}

// All that the child needs, laid out before the fork: other threads may hold the allocator's lock.
struct ChildPlan {
  const Isolation& isolation;
  const SandboxLimits& limits;
  const char *python, *wrapper;
  int files[kDescriptors];
  int to_parent;  // a socket
  pid_t parent;
};

bool limit(__rlimit_resource resource, int64_t soft, int64_t hard) {
  const rlimit value{static_cast<rlim_t>(soft), static_cast<rlim_t>(hard)};
  return setrlimit(resource, &value) == 0;
}

bool limit(__rlimit_resource resource, int64_t most) { return limit(resource, most, most); }

bool set_limits(const SandboxLimits& limits) {
  // At the soft limit comes SIGXCPU, at the hard one SIGKILL.
  return limit(RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1) &&
         limit(RLIMIT_AS, limits.memory_bytes) && limit(RLIMIT_FSIZE, 0) && limit(RLIMIT_CORE, 0) &&
         limit(RLIMIT_NOFILE, 64) && limit(RLIMIT_NPROC, 0);
}

bool lay_out_files(const ChildPlan& plan) {
  for (int i = 0; i < kDescriptors; ++i) {
    if (dup2(plan.files[i], i) < 0) return false;
  }
  return true;
}

// An error's number, or 0 and a descriptor. System calls alone.
bool tell(int socket, int error, int descriptor) {
  iovec bytes{&error, sizeof(error)};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  if (descriptor >= 0) {
    message.msg_control = space;
    message.msg_controllen = sizeof(space);
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  }
  return sendmsg(socket, &message, 0) == sizeof(error);
}

// What tell() sent. Error(kInternal) for an error.
File receive_descriptor(const File& socket) {
  int error = 0, descriptor = -1;
  iovec bytes{&error, sizeof(error)};
  alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = space;
  message.msg_controllen = sizeof(space);
  ssize_t got = 0;
  do got = recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got != sizeof(error)) throw internal_error("generated code cannot be isolated here");
  if (error != 0) throw not_isolated(error);
  const cmsghdr* const header = CMSG_FIRSTHDR(&message);
  if (header != nullptr) std::memcpy(&descriptor, CMSG_DATA(header), sizeof(int));
  return File(descriptor);
}

// Between fork and exec: system calls alone.
[[noreturn]] void become_python(const ChildPlan& plan) {
  const char* const arguments[] = {plan.python, "-I", "-S", "-B", "-c", plan.wrapper, nullptr};
  static const char* const kEnvironment[] = {"LANG=C.UTF-8", "PYTHONHASHSEED=0", nullptr};
  sigset_t none;
  sigemptyset(&none);
  // Ruleset and socket are still needed, so descriptors are marked for exec, not closed.
  const bool ready = sigprocmask(SIG_SETMASK, &none, nullptr) == 0 && setsid() >= 0 &&
                     chdir("/") == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
                     getppid() == plan.parent && lay_out_files(plan) &&
                     syscall(SYS_close_range, kDescriptors, ~0u, CLOSE_RANGE_CLOEXEC) == 0 &&
                     set_limits(plan.limits);
  const int listener = ready ? plan.isolation.apply() : -1;
  if (listener >= 0 && tell(plan.to_parent, 0, listener)) {
    execve(plan.python, const_cast<char* const*>(arguments),
           const_cast<char* const*>(kEnvironment));
  } else {
    tell(plan.to_parent, errno, -1);
  }
  _exit(1);
}

}  // namespace

File::File(int descriptor) : descriptor_(descriptor) {
  if (descriptor < 0) {
    throw internal_error(std::string("the sandbox cannot be set up: ") + std::strerror(errno));
  }
}

void File::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

File File::moved_up() && {
  File copy(fcntl(descriptor_, F_DUPFD_CLOEXEC, kReservedDescriptors));
  close();
  return copy;
}

Pipe make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) ends[0] = ends[1] = -1;
  return {File(ends[0]).moved_up(), File(ends[1]).moved_up()};
}

File file_of(const std::string& bytes) {
  File file = File(memfd_create("program", MFD_CLOEXEC)).moved_up();
  if (!write_all(file.get(), bytes)) {
    throw internal_error("the sandbox cannot take the program: out of memory");
  }
  lseek(file.get(), 0, SEEK_SET);
  return file;
}

Interpreter::Interpreter(const Rules& rules, const char* wrapper, const Wiring& wiring)
    : rules_(rules), listener_([&] {
        int ends[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
          ends[0] = ends[1] = -1;
        const File ours(ends[0]);
        File theirs = File(ends[1]).moved_up();
        const File null = File(open("/dev/null", O_RDWR | O_CLOEXEC)).moved_up();
        const auto or_null = [&](int file) { return file >= 0 ? file : null.get(); };
        const ChildPlan plan{rules.isolation,
                             rules.limits,
                             rules.python.c_str(),
                             wrapper,
                             {wiring.program, null.get(), null.get(), or_null(wiring.in),
                              or_null(wiring.out), or_null(wiring.verdict)},
                             theirs.get(),
                             getpid()};
        process_ = fork();
        if (process_ < 0) throw internal_error("the sandbox cannot start a process");
        if (process_ == 0) become_python(plan);
        theirs.close();
        try {
          return receive_descriptor(ours);
        } catch (...) {
          end();
          throw;
        }
      }()) {}

Interpreter::~Interpreter() { end(); }

bool Interpreter::end() {
  if (process_ < 0) return false;
  kill(process_, SIGKILL);
  int status = 0;
  while (waitpid(process_, &status, 0) < 0 && errno == EINTR) {
  }
  process_ = -1;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU;
}

}  // namespace dmc::sandbox
