// A Python process that can compute and nothing else.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <utility>

#include "sandbox/isolation.h"
#include "sandbox/path_gate.h"
#include "sandbox/sandbox.h"

namespace dmc::sandbox {

using Clock = std::chrono::steady_clock;

// Closes its descriptor.
class File {
 public:
  explicit File(int descriptor);  // Error(kInternal) for a negative one, from errno
  File(File&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  ~File() { close(); }
  void close();
  int get() const { return descriptor_; }
  // The same above the descriptors that a child lays out anew.
  File moved_up() &&;

 private:
  int descriptor_;
};

struct Pipe {
  File read, write;
};
Pipe make_pipe();

// Bytes to be read from their beginning.
File file_of(const std::string& bytes);

// All that processes of a sandbox have in common.
struct Rules {
  std::filesystem::path python;
  SandboxLimits limits;
  Isolation isolation;
  PathGate gate;
};

// An interpreter's descriptors, as its parent has them: standard input, 3, 4 and 5. Standard output
// and error are /dev/null, and so is what is -1.
struct Wiring {
  int program, in = -1, out = -1, verdict = -1;
};

class Interpreter {
 public:
  // Starts `wrapper`, Python's -c. Error(kInternal) if it cannot be isolated.
  Interpreter(const Rules& rules, const char* wrapper, const Wiring& wiring);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // To wait at for calls, which answer_call() then answers.
  int listener() const { return listener_.get(); }
  void answer_call() { rules_.gate.answer(listener_.get(), &may_execute_); }

  // Kills it. Whether it ended because its time was used up.
  bool end();

 private:
  const Rules& rules_;
  pid_t process_ = -1;
  bool may_execute_ = true;
  File listener_;
};

}  // namespace dmc::sandbox
