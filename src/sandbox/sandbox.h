// Runs Python that a model wrote, in a process that can compute and nothing else, and has it judged
// by another one that it cannot reach.
//
// Processes are unprivileged and cut off by independent means of Linux (5.13 or later), none of
// which needs root or a container:
//   - Landlock: they read the Python installation and system libraries, and no other file;
//   - seccomp: a list of some fifty system calls that reading files and computing need. There is
//     no call in it to make processes, threads or sockets, to signal or inspect another process,
//     or to change a file;
//   - calls that take a path are decided on by the parent (path_gate.h), so that of other files
//     they do not even learn which there are;
//   - limits on time, memory and open files.
// Where the machine has no Landlock or seccomp, nothing is run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace dmc::sandbox {

struct SandboxLimits {
  int64_t cpu_seconds = 3;  // of each process
  int64_t wall_seconds = 10;
  int64_t memory_bytes = int64_t{1} << 30;  // of address space
};

enum class Verdict { kPassed, kFailed, kTimedOut };

// A function that is to be judged.
struct Judged {
  std::string program;   // what defines it; nobody vouches for it
  std::string function;  // its name
  // Trusted code that the tests may use, for example the beginning of the program; where it is no
  // valid Python by itself, they do without.
  std::string helpers;
  // Trusted code that fails by an exception. There the function is a stand-in of that name, which
  // hands its arguments to the program's process and returns what comes back.
  std::string tests;
};

struct Rules;

class PythonSandbox {
 public:
  // Finds python3 in PATH and tries the isolation out. Error(kUnavailable) if there is no python3,
  // Error(kInternal) if this machine cannot isolate.
  explicit PythonSandbox(const SandboxLimits& limits);
  ~PythonSandbox();

  // kPassed if the tests run to their end without an exception. They run in a process of their own,
  // and only that one is heard: whatever the program does, it can but answer calls. Arguments and
  // results are numbers, texts, bytes and containers of them; other results equal nothing, and can
  // be iterated over if they could. What is printed is lost. Not from two threads at once.
  Verdict judge(const Judged& judged) const;

  // kPassed if `program` says so: it ran to its end, or it lied. For tests of the sandbox itself.
  Verdict probe(const std::string& program) const;

 private:
  std::unique_ptr<const Rules> rules_;
};

}  // namespace dmc::sandbox
