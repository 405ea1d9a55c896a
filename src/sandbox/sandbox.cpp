#include "sandbox/sandbox.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "base/error.h"
#include "sandbox/interpreter.h"
#include "sandbox/wrappers.h"
#include "text/strings.h"

namespace dmc::sandbox {
namespace fs = std::filesystem;
namespace {

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

std::unique_ptr<const Rules> make_rules(const SandboxLimits& limits) {
  std::vector<fs::path> readable = ask_python();
  const fs::path python = readable.front();
  for (const char* path : {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"}) {
    readable.emplace_back(path);
  }
  return std::unique_ptr<const Rules>(
      new Rules{python, limits, Isolation(readable), PathGate(readable)});
}

struct Heard {
  std::string said;  // through the pipe until it closed or was long enough
  bool in_time = true;
};

// Answers the interpreters' calls meanwhile.
Heard listen(const File& pipe, std::span<Interpreter* const> interpreters, int64_t seconds) {
  const auto deadline = Clock::now() + std::chrono::seconds(seconds);
  std::vector<pollfd> waiting = {{pipe.get(), POLLIN, 0}};
  for (const Interpreter* one : interpreters) waiting.push_back({one->listener(), POLLIN, 0});
  Heard heard;
  for (;;) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const int ready = left > 0 ? poll(waiting.data(), waiting.size(), static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    heard.in_time = ready > 0;
    if (ready <= 0) return heard;
    for (size_t i = 0; i < interpreters.size(); ++i) {
      pollfd& listener = waiting[i + 1];
      if ((listener.revents & POLLIN) != 0) {
        interpreters[i]->answer_call();
      } else if (listener.revents != 0) {
        listener.fd = -1;  // it is gone, which its pipes tell
      }
    }
    if (waiting[0].revents == 0) continue;
    std::array<char, 64> chunk;
    const ssize_t count = read(pipe.get(), chunk.data(), chunk.size());
    if (count > 0) heard.said.append(chunk.data(), static_cast<size_t>(count));
    if (count <= 0 || heard.said.size() >= std::strlen(kPassedWord)) return heard;
  }
}

Verdict verdict_of(const Heard& heard, bool out_of_cpu) {
  if (heard.said == kPassedWord) return Verdict::kPassed;
  return heard.in_time && !out_of_cpu ? Verdict::kFailed : Verdict::kTimedOut;
}

}  // namespace

PythonSandbox::PythonSandbox(const SandboxLimits& limits) : rules_(make_rules(limits)) {
  if (probe("x = 1\n") != Verdict::kPassed) {
    throw internal_error("generated code cannot be run: " + rules_->python.string() +
                         " does not work in the sandbox");
  }
  for (const char* attempt : {"open('/proc/self/status')", "import os\nos.stat('/proc/self')"}) {
    if (probe(attempt) == Verdict::kPassed) {
      throw internal_error("generated code cannot be run: this machine does not isolate it");
    }
  }
}

PythonSandbox::~PythonSandbox() = default;

Verdict PythonSandbox::probe(const std::string& program) const {
  const File input = file_of(program);
  Pipe verdict = make_pipe();
  Interpreter python(*rules_, probe_wrapper(),
                     {.program = input.get(), .verdict = verdict.write.get()});
  verdict.write.close();
  Interpreter* const all[] = {&python};
  const Heard heard = listen(verdict.read, all, rules_->limits.wall_seconds);
  return verdict_of(heard, python.end());
}

Verdict PythonSandbox::judge(const Judged& judged) const {
  const nlohmann::json tests = {
      {"function", judged.function}, {"helpers", judged.helpers}, {"tests", judged.tests}};
  const auto replace = nlohmann::json::error_handler_t::replace;
  const File program_input = file_of(judged.function + "\n" + judged.program);
  const File tests_input = file_of(tests.dump(-1, ' ', /*ensure_ascii=*/true, replace));
  Pipe calls = make_pipe(), results = make_pipe(), verdict = make_pipe();
  Interpreter program(
      *rules_, program_wrapper(),
      {.program = program_input.get(), .in = calls.read.get(), .out = results.write.get()});
  calls.read.close();  // so that each end closes with the process that has it
  results.write.close();
  Interpreter judge(*rules_, judge_wrapper(),
                    {.program = tests_input.get(),
                     .in = results.read.get(),
                     .out = calls.write.get(),
                     .verdict = verdict.write.get()});
  results.read.close();
  calls.write.close();
  verdict.write.close();
  Interpreter* const all[] = {&program, &judge};
  const Heard heard = listen(verdict.read, all, rules_->limits.wall_seconds);
  const bool program_ran_out = program.end(), judge_ran_out = judge.end();
  return verdict_of(heard, program_ran_out || judge_ran_out);
}

}  // namespace dmc::sandbox
