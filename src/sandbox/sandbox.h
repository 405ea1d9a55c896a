// Runs Python that a model wrote, in a process that can compute and nothing else.
//
// The process is unprivileged and cut off by three independent means of Linux (5.13 or later),
// none of which needs root or a container:
//   - Landlock: it reads the Python installation and system libraries, and no other file;
//   - seccomp: a list of some fifty system calls that reading files and computing need. There is
//     no call in it to make processes, threads or sockets, to signal or inspect another process,
//     or to change a file;
//   - limits on time, memory and open files.
// Where the machine has no Landlock or seccomp, nothing is run.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dmc::sandbox {

struct SandboxLimits {
  int64_t cpu_seconds = 3;
  int64_t wall_seconds = 10;
  int64_t memory_bytes = int64_t{1} << 30;  // of address space
};

enum class Verdict { kPassed, kFailed, kTimedOut };

class PythonSandbox {
 public:
  // Finds python3 in PATH and tries the isolation out. Error(kInvalidArgument) if there is no
  // python3, Error(kInternal) if this machine cannot isolate.
  explicit PythonSandbox(const SandboxLimits& limits);

  // kPassed if `program` runs to its end without an exception; leaving early with sys.exit() or
  // os._exit() does not count. What it prints is lost. Not to be called from two threads at once.
  Verdict run(const std::string& program) const;

 private:
  SandboxLimits limits_;
  std::filesystem::path python_;
  std::vector<std::filesystem::path> readable_;  // the interpreter and its libraries
};

}  // namespace dmc::sandbox
