#include "sandbox/sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <utility>

#include "base/error.h"
#include "sandbox/isolation.h"
#include "text/strings.h"

namespace dmc::sandbox {
namespace fs = std::filesystem;
namespace {

// File descriptors of the child.
constexpr int kInput = 0, kResult = 3, kTrouble = 4;
static_assert(kTrouble < kReservedDescriptors);

// The program comes on standard input behind a token. Handing the token back is the only way to
// pass, and comes after the program's last line.
constexpr const char* kWrapper =
    "import os, sys\n"
    "write, leave = os.write, os._exit\n"
    "token, program = sys.stdin.buffer.read().split(b'\\n', 1)\n"
    "try:\n"
    "    exec(compile(program, '<program>', 'exec'), {})\n"
    "except BaseException:\n"
    "    leave(1)\n"
    "write(3, token)\n"
    "leave(0)\n";

class File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {
    if (descriptor < 0) {
      throw internal_error(std::string("the sandbox cannot be set up: ") + std::strerror(errno));
    }
  }
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  ~File() { close(); }
  void close() {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  }
  int get() const { return descriptor_; }

  // The same above the descriptors that the child lays out anew.
  File moved_up() && {
    File copy(fcntl(descriptor_, F_DUPFD_CLOEXEC, kReservedDescriptors));
    close();
    return copy;
  }

 private:
  int descriptor_;
};

struct Pipe {
  File read, write;
};

Pipe make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) ends[0] = ends[1] = -1;
  return {File(ends[0]).moved_up(), File(ends[1]).moved_up()};
}

File make_input(const std::string& bytes) {
  File file = File(memfd_create("program", MFD_CLOEXEC)).moved_up();
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t count = write(file.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0) throw internal_error("the sandbox cannot take the program: out of memory");
    done += static_cast<size_t>(count);
  }
  lseek(file.get(), 0, SEEK_SET);
  return file;
}

std::string random_token() {
  std::random_device device;
  std::string token;
  for (int i = 0; i < 32; ++i) token += "0123456789abcdef"[device() % 16];
  return token;
}

// All that the child needs, laid out before the fork: other threads may hold the allocator's lock.
struct ChildPlan {
  const Isolation& isolation;
  const SandboxLimits& limits;
  const char* python;
  int input, null, result, trouble;
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
  return dup2(plan.input, kInput) >= 0 && dup2(plan.null, STDOUT_FILENO) >= 0 &&
         dup2(plan.null, STDERR_FILENO) >= 0 && dup2(plan.result, kResult) >= 0 &&
         dup3(plan.trouble, kTrouble, O_CLOEXEC) >= 0;
}

// Between fork and exec: system calls alone. Whatever fails is told through kTrouble, which a
// successful exec closes.
[[noreturn]] void become_python(const ChildPlan& plan) {
  static const char* const kArguments[] = {"python3", "-I", "-S", "-B", "-c", kWrapper, nullptr};
  static const char* const kEnvironment[] = {"LANG=C.UTF-8", "PYTHONHASHSEED=0", nullptr};
  sigset_t none;
  sigemptyset(&none);
  // The ruleset's descriptor is still needed, so the others are marked for exec, not closed.
  const bool ready =
      sigprocmask(SIG_SETMASK, &none, nullptr) == 0 && setsid() >= 0 &&
      prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == plan.parent && lay_out_files(plan) &&
      syscall(SYS_close_range, kReservedDescriptors, ~0u, CLOSE_RANGE_CLOEXEC) == 0 &&
      set_limits(plan.limits) && plan.isolation.apply();
  if (ready) {
    execve(plan.python, const_cast<char* const*>(kArguments),
           const_cast<char* const*>(kEnvironment));
  }
  const int error = errno;
  [[maybe_unused]] const ssize_t told = write(kTrouble, &error, sizeof(error));
  _exit(1);
}

using Clock = std::chrono::steady_clock;

// What comes through the pipe until it closes, `most` bytes are there or the time is over.
std::string read_until(const File& pipe, size_t most, Clock::time_point deadline, bool* in_time) {
  std::string bytes;
  char chunk[64];
  *in_time = true;
  while (bytes.size() < most) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd waiting{pipe.get(), POLLIN, 0};
    const int ready = left > 0 ? poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    *in_time = ready > 0;
    if (ready <= 0) break;
    const ssize_t count = read(pipe.get(), chunk, sizeof(chunk));
    if (count <= 0) break;
    bytes.append(chunk, static_cast<size_t>(count));
  }
  return bytes;
}

// The interpreter's file and the folders it reads, one a line. It is trusted; this runs it freely.
std::vector<fs::path> ask_python() {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(
      popen("python3 -I -S -c 'import os, sys, sysconfig as s; print(os.path.realpath("
            "sys.executable), s.get_path(\"stdlib\"), s.get_path(\"platstdlib\"), "
            "os.path.join(sys.base_prefix, \"lib\"), sep=\"\\n\")' 2>/dev/null",
            "re"),
      pclose);
  std::string answer;
  char chunk[256];
  while (pipe && std::fgets(chunk, sizeof(chunk), pipe.get()) != nullptr) answer += chunk;
  std::vector<fs::path> paths;
  for (std::string_view line : text::split_lines(answer)) paths.emplace_back(line);
  if (paths.size() != 4) {
    throw unavailable("", "generated code cannot be run: there is no python3 in PATH that works");
  }
  return paths;
}

}  // namespace

PythonSandbox::PythonSandbox(const SandboxLimits& limits) : limits_(limits) {
  readable_ = ask_python();
  python_ = readable_.front();
  for (const char* path : {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"}) {
    readable_.emplace_back(path);
  }
  if (run("x = 1\n") != Verdict::kPassed) {
    throw internal_error("generated code cannot be run: " + python_.string() +
                         " does not work in the sandbox");
  }
  if (run("open('/proc/self/status')\n") == Verdict::kPassed) {
    throw internal_error("generated code cannot be run: this machine does not isolate it");
  }
}

Verdict PythonSandbox::run(const std::string& program) const {
  const std::string token = random_token();
  const Isolation isolation(readable_);
  const File input = make_input(token + "\n" + program);
  const File null = File(open("/dev/null", O_RDWR | O_CLOEXEC)).moved_up();
  Pipe result = make_pipe(), trouble = make_pipe();
  const ChildPlan plan{isolation,           limits_,    python_.c_str(),
                       input.get(),         null.get(), result.write.get(),
                       trouble.write.get(), getpid()};
  const auto deadline = Clock::now() + std::chrono::seconds(limits_.wall_seconds);
  const pid_t child = fork();
  if (child < 0) throw internal_error("the sandbox cannot start a process");
  if (child == 0) become_python(plan);
  result.write.close();
  trouble.write.close();

  bool started_in_time = false, in_time = false;
  const std::string error = read_until(trouble.read, sizeof(int), deadline, &started_in_time);
  const std::string said = read_until(result.read, token.size(), deadline, &in_time);
  kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!error.empty()) {
    int code = 0;
    std::memcpy(&code, error.data(), std::min(error.size(), sizeof(code)));
    throw internal_error(std::string("generated code cannot be isolated here: ") +
                         std::strerror(code));
  }
  if (said == token) return Verdict::kPassed;
  const bool out_of_cpu = WIFSIGNALED(status) && WTERMSIG(status) == SIGXCPU;
  return in_time && !out_of_cpu ? Verdict::kFailed : Verdict::kTimedOut;
}

}  // namespace dmc::sandbox
