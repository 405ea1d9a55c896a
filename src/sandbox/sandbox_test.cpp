// What generated code must not be able to do. Each attack asserts that it was stopped by counting
// as a failure; what it tried to reach is real.
#include "sandbox/sandbox.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <functional>

#include "base/error.h"
#include "base/temp_folder.h"
#include "sandbox/path_gate.h"

namespace dmc::sandbox {
namespace {

namespace fs = std::filesystem;

const PythonSandbox* sandbox() {
  static const auto made = []() -> const PythonSandbox* {
    try {
      return new PythonSandbox({.cpu_seconds = 2, .wall_seconds = 60});
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      return nullptr;
    }
  }();
  return made;
}

class Sandbox : public testing::Test {
 protected:
  void SetUp() override {
    if (sandbox() == nullptr) GTEST_SKIP() << "this machine cannot isolate generated code";
  }
};

TEST_F(Sandbox, LetsCodeCompute) {
  EXPECT_EQ(sandbox()->probe("assert sum(range(10)) == 45"), Verdict::kPassed);
  EXPECT_EQ(
      sandbox()->probe("from typing import List\nimport math, re, random, collections, heapq\n"
                       "import itertools, functools, string, datetime, copy, json, hashlib\n"
                       "assert math.factorial(20) == 2432902008176640000\n"
                       "print('lost', flush=True)\n"),
      Verdict::kPassed);
  EXPECT_EQ(sandbox()->probe(std::string(1 << 20, '#') + "\nx = 'ä'\nassert len(x) == 1"),
            Verdict::kPassed)
      << "longer than a pipe holds";
}

// What the attacks below import is there: none of them fails for want of a module.
TEST_F(Sandbox, HasTheModulesTheAttacksNeed) {
  for (const char* program :
       {"import os, sys, time, resource, fcntl, mmap, threading, subprocess, _socket",
        "import ctypes\nassert ctypes.CDLL(None).getpid() > 0", "assert bytearray(10 * 2**20)",
        "import sysconfig\nopen(sysconfig.get_path('stdlib') + '/os.py')",
        "import os, sysconfig\nos.stat(sysconfig.get_path('stdlib'))\nos.stat('/usr')"}) {
    EXPECT_EQ(sandbox()->probe(program), Verdict::kPassed) << program;
  }
}

TEST_F(Sandbox, FailuresAreFailures) {
  for (const char* program :
       {"assert 1 == 2", "1 / 0", "def broken(:", "raise SystemExit(0)", "import os; os._exit(0)",
        "import sys; sys.exit()", "import os; os.write(3, b'passed'); os._exit(0)",
        "import ctypes; ctypes.string_at(0)", "def f(): f()\nf()", "import numpy"}) {
    EXPECT_EQ(sandbox()->probe(program), Verdict::kFailed) << program;
  }
}

TEST_F(Sandbox, EndlessLoopsAndSleepsTimeOut) {
  EXPECT_EQ(sandbox()->probe("while True: pass"), Verdict::kTimedOut);
  EXPECT_EQ(sandbox()->probe("import os\nos.close(5)\nwhile True: pass"), Verdict::kFailed)
      << "closing the result's pipe is giving up";
  const PythonSandbox impatient({.cpu_seconds = 2, .wall_seconds = 5});
  EXPECT_EQ(impatient.probe("import time\ntime.sleep(1000)"), Verdict::kTimedOut);
}

TEST_F(Sandbox, TakesNoMoreMemoryThanItsLimit) {
  EXPECT_EQ(sandbox()->probe("x = bytearray(10 * 2**30)"), Verdict::kFailed);
  EXPECT_EQ(sandbox()->probe("import mmap\nm = mmap.mmap(-1, 10 * 2**30)"), Verdict::kFailed);
  EXPECT_NE(sandbox()->probe("x = []\nwhile True: x.append(bytearray(2**24))"), Verdict::kPassed);
}

TEST_F(Sandbox, KnowsNothingOfItsParent) {
  setenv("DMC_SANDBOX_SECRET", "x", 1);
  const int open_here = dup(1);  // not close-on-exec
  EXPECT_EQ(sandbox()->probe("import os\nassert not [k for k in os.environ if 'SECRET' in k]"),
            Verdict::kPassed);
  EXPECT_EQ(sandbox()->probe("import os\nfor fd in range(6, 64):\n  try:\n    os.fstat(fd)\n"
                             "  except OSError: continue\n  raise SystemExit(fd)"),
            Verdict::kPassed)
      << "only the program, null and the pipes are open";
  close(open_here);
}

// A system call by its number on this machine, which raises where it fails.
constexpr auto kCall = R"(
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    number = {'io_uring_setup': 425, 'clone3': 435, 'pidfd_open': 434, 'openat2': 437,
              'pidfd_getfd': 438, 'userfaultfd': 323, 'bpf': 321, 'execveat': 322,
              'memfd_create': 319, 'process_vm_readv': 310, 'process_vm_writev': 311,
              'perf_event_open': 298, 'name_to_handle_at': 303, 'setns': 308, 'unshare': 272,
              'keyctl': 250, 'mount': 165, 'chroot': 161, 'tgkill': 234, 'tkill': 200,
              'rt_sigqueueinfo': 129, 'fork': 57, 'clone': 56, 'kill': 62, 'shmget': 29,
              'mq_open': 240, 'inotify_init': 253, 'statfs': 137, 'statmount': 457,
              'prctl': 157, 'fchdir': 81, 'setpriority': 141, 'io_setup': 206,
              'landlock_create_ruleset': 444, 'seccomp': 317, 'mknod': 133, 'dup2': 33,
              'sendto': 44, 'socket': 41, 'capset': 126}[name]
    result = libc.syscall(number, *arguments)
    if result < 0: raise OSError(ctypes.get_errno(), name)
    return result
)";

// Files, processes and environment of this very process.
std::vector<std::string> attacks(const fs::path& folder) {
  const std::string name = (folder / "secret").string(), pid = std::to_string(getpid());
  std::vector<std::string> all = {
      // processes and threads
      "import os\nwhile True: os.fork()", "import os\nassert os.fork() >= 0",
      "import subprocess\nsubprocess.run(['/bin/true'])", "import os\nassert not os.system('true')",
      "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
      "import os\nos.execv('/bin/sh', ['sh', '-c', 'kill -9 -1'])",
      "import os, sysconfig\nos.execv(sysconfig.get_path('stdlib') + '/../../bin/python3', ['x'])",
      "import ctypes\nassert ctypes.CDLL(None).vfork() >= 0",
      // network and names of machines
      "import _socket as s\ns.socket(s.AF_INET, s.SOCK_STREAM)",
      "import _socket as s\ns.socket(s.AF_INET6, s.SOCK_DGRAM)",
      "import _socket as s\ns.socket(s.AF_UNIX, s.SOCK_STREAM)",
      "import _socket as s\ns.socket(s.AF_NETLINK, s.SOCK_RAW)",
      "import _socket as s\ns.socketpair()", "import _socket as s\ns.getaddrinfo('localhost', 80)",
      "import _socket as s\ns.gethostbyname('example.com')",
      // files
      "open('" + name + "')", "open('" + name + "', 'a')", "open('" + name + "2', 'w')",
      "import os\nos.unlink('" + name + "')", "import os\nos.rename('" + name + "', '/tmp/x')",
      "import os\nos.truncate('" + name + "', 0)", "import os\nos.chmod('" + name + "', 0)",
      "import os\nos.utime('" + name + "')", "import os\nos.mkdir('" + name + "2')",
      "import os\nos.symlink('/etc', '" + name + "2')",
      "import os\nos.link('" + name + "', '" + name + "2')",
      "import os\nos.listdir('" + folder.string() + "')", "import os\nos.listdir('/')",
      "import os\nos.chdir('/')", "import os\nos.memfd_create('x')", "open('/etc/passwd')",
      "open('/etc/resolv.conf')", "open('/dev/shm/x', 'w')", "open('/dev/tty')",
      "open('/proc/self/mem', 'wb')", "open('/proc/1/cmdline')", "open('/sys/kernel/notes')",
      "import os\nos.write(0, b'x')",
      // which files there are
      "import os\nos.stat('" + name + "')", "import os\nos.lstat('" + name + "')",
      "import os\nassert os.access('" + name + "', os.F_OK)",
      "import os\nos.readlink('/proc/self/exe')", "import os\nos.readlink('/proc/self/fd/0')",
      "import os\nos.stat('/usr/lib/.." + name + "')",
      "import os\nos.stat('/usr/lib/python3/../../.." + name + "')",
      "import os\nos.stat('" + name.substr(1) + "')", "import os\nos.stat('/proc/" + pid + "')",
      "import os\nfd = os.open('/usr/lib', os.O_RDONLY)\nos.stat('../.." + name + "', dir_fd=fd)",
      "import os\nos.stat('/proc/self/root" + name + "')", "import os\nos.statvfs('/')",
      // Whether a file is there must not even show in how opening it fails.
      "import errno, os\ndef why(path):\n  try: os.open(path, os.O_RDONLY)\n"
      "  except OSError as error: return error.errno\n"
      "assert why('" +
          name + "') != why('" + name + "-is-not-there')",
      "import errno, os\ndef why(path):\n  try: os.execv(path, ['x'])\n"
      "  except OSError as error: return error.errno\n"
      "assert why('" +
          name + "') != why('" + name + "-is-not-there')",
      // other processes
      "open('/proc/" + pid + "/environ', 'rb')", "open('/proc/" + pid + "/mem', 'rb')",
      "open('/proc/" + pid + "/fd/0', 'rb')", "import os\nos.kill(" + pid + ", 9)",
      "import os\nos.kill(" + pid + ", 0)", "import os\nos.kill(-1, 9)",
      "import os\nos.killpg(0, 9)", "import os\nos.setpriority(os.PRIO_PROCESS, " + pid + ", 19)",
      "import os\nos.sched_setaffinity(" + pid + ", [0])",
      "import resource\nresource.prlimit(" + pid + ", resource.RLIMIT_NOFILE, (1, 1))",
      "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
      "import fcntl\nfcntl.fcntl(3, fcntl.F_SETOWN, " + pid + ")",
      "import ctypes\nassert ctypes.CDLL(None).ptrace(16, " + pid + ", 0, 0) == 0",
      "import ctypes\nassert ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0",
      "import os\nos.setuid(0)\nos.setuid(65534)", "import os\nos.setgroups([0])",
      "import os\nos.setsid()", "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1)",
      "import os\nos.nice(-5)"};
#if defined(__x86_64__)
  for (const std::string& attempt : std::vector<std::string>{
           "call('io_uring_setup', 8, ctypes.create_string_buffer(256))",
           "call('io_setup', 8, ctypes.create_string_buffer(256))",
           // clone3 with a new user, PID and network namespace; and with none
           "call('clone3', ctypes.create_string_buffer((0x70000000).to_bytes(8, 'little') + "
           "bytes(80), 88), 88)",
           "call('clone3', ctypes.create_string_buffer(bytes(88), 88), 88)",
           "call('clone', 0x10000000 | 17, 0, 0, 0, 0)", "call('fork')",
           "call('unshare', 0x10000000)", "call('setns', 0, 0)",
           "call('execveat', call('memfd_create', b'x', 0), b'', 0, 0, 0x1000)",
           "call('execveat', 0, b'', 0, 0, 0x1000)", "call('execveat', -100, b'/bin/sh', 0, 0, 0)",
           "call('openat2', -100, b'/usr', ctypes.create_string_buffer(24), 24)",
           "call('pidfd_open', " + pid + ", 0)", "call('pidfd_getfd', 3, 3, 0)",
           "call('process_vm_readv', " + pid + ", 0, 0, 0, 0, 0)",
           "call('process_vm_writev', " + pid + ", 0, 0, 0, 0, 0)",
           "call('tgkill', " + pid + ", " + pid + ", 9)", "call('tkill', " + pid + ", 9)",
           "call('rt_sigqueueinfo', " + pid + ", 9, ctypes.create_string_buffer(128))",
           "call('kill', os.getppid() if hasattr(os, 'getppid') else 1, 0)",
           "call('userfaultfd', 0)", "call('bpf', 0, 0, 0)",
           "call('perf_event_open', ctypes.create_string_buffer(128), 0, -1, -1, 0)",
           "call('name_to_handle_at', -100, b'/', 0, 0, 0)", "call('keyctl', 0, -3, 1)",
           "call('mount', b'none', b'/tmp', b'tmpfs', 0, 0)", "call('chroot', b'/usr')",
           "call('shmget', 0, 4096, 0o1600)", "call('mq_open', b'x', 0o102, 0o600, 0)",
           "call('inotify_init')", "call('statfs', b'/', ctypes.create_string_buffer(256))",
           "call('prctl', 4, 0, 0, 0, 0)", "call('prctl', 1, 0, 0, 0, 0)",
           "call('landlock_create_ruleset', 0, 0, 1)", "call('seccomp', 2, 0, 0)",
           "call('mknod', b'/tmp/x', 0o10600, 0)", "call('dup2', 0, 10)", "call('socket', 1, 1, 0)",
           "call('sendto', 4, b'x', 1, 0, 0, 0)", "call('capset', 0, 0)",
           // the other tables of system calls of the same kernel
           "call('socket', 2, 1, 0) if libc.syscall(0x40000000 + 41, 2, 1, 0) < 0 else 0",
           "code = __import__('mmap').mmap(-1, 4096, prot=7)\n"
           "code.write(bytes.fromhex('b814000000cd80c3'))\n"  // mov eax, getpid of 32 bit; int 0x80
           "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()"}) {
    all.push_back(kCall + attempt);
  }
#endif
  return all;
}

// Those that were not stopped, one a line.
std::string succeeded(const PythonSandbox& in, const fs::path& folder) {
  std::string result;
  for (const std::string& program : attacks(folder)) {
    if (in.probe(program) == Verdict::kPassed) result += program + "\n";
  }
  return result;
}

void expect_untouched(const fs::path& folder) {
  EXPECT_TRUE(fs::exists(folder / "secret"));
  EXPECT_EQ(fs::file_size(folder / "secret"), 6u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
}

TEST_F(Sandbox, StopsAllAttacks) {
  const TempFolder temp;
  std::ofstream(temp.path() / "secret") << "secret";
  EXPECT_EQ(succeeded(*sandbox(), temp.path()), "");
  expect_untouched(temp.path());
}

#if defined(__x86_64__)
TEST_F(Sandbox, TheAttacksByNumberMakeRealCalls) {
  EXPECT_EQ(sandbox()->probe(kCall + std::string("assert libc.syscall(39) == os.getpid()")),
            Verdict::kPassed);
}
#endif

// Runs `work` as an ordinary user, in a process of its own; what it says there, or "cannot".
std::string as_nobody(const std::function<std::string()>& work) {
  int ends[2];
  if (pipe(ends) != 0) return "cannot";
  const pid_t child = fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    setenv("PATH", "/usr/bin:/bin", 1);
    const bool ready = setgroups(0, nullptr) == 0 && setgid(kNobody) == 0 && setuid(kNobody) == 0;
    std::string said = "cannot";
    try {
      if (ready) said = work();
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    [[maybe_unused]] const ssize_t told = write(ends[1], said.data(), said.size());
    _exit(0);
  }
  close(ends[1]);
  std::string said;
  char part[4096];
  for (ssize_t got; (got = read(ends[0], part, sizeof(part))) > 0;) {
    said.append(part, static_cast<size_t>(got));
  }
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return said;
}

TEST_F(Sandbox, StopsAllAttacksFromAnOrdinaryUser) {
  if (getuid() != 0) GTEST_SKIP() << "that is who runs StopsAllAttacks";
  const TempFolder temp;
  std::ofstream(temp.path() / "secret") << "secret";
  fs::permissions(temp.path(), fs::perms::all);
  fs::permissions(temp.path() / "secret", fs::perms::all);
  const std::string said = as_nobody([&] {
    const PythonSandbox own({.cpu_seconds = 2, .wall_seconds = 60});
    return succeeded(own, temp.path());
  });
  if (said == "cannot") GTEST_SKIP() << "there is no other user, or no Python that it may run";
  EXPECT_EQ(said, "");
  expect_untouched(temp.path());
}

TEST_F(Sandbox, LeavesNoProcessesBehind) {
  for (const char* program : {"import os\nwhile True: os.fork()", "x = 1", "while True: pass"}) {
    sandbox()->probe(program);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << program;
  }
}

Judged twice(const std::string& program) {
  return {.program = program,
          .function = "twice",
          .helpers = "def helper(x):\n  return 2 * x\n\ndef twice(x):\n  '''Doubles.'''\n",
          .tests =
              "def check(candidate):\n"
              "  assert candidate(2) == 4\n"
              "  assert candidate('ab') == 'abab'\n"
              "  assert candidate(x=[1, (2.5, None)]) == helper([1, (2.5, None)])\n"
              "check(twice)\n"};
}

TEST_F(Sandbox, JudgesFunctions) {
  EXPECT_EQ(sandbox()->judge(twice("def twice(x):\n  return x * 2")), Verdict::kPassed);
  EXPECT_EQ(sandbox()->judge(twice("import copy\ndef twice(x):\n  return x + copy.copy(x)")),
            Verdict::kPassed);
  for (const char* program :
       {"def twice(x):\n  return x", "def twice(:", "def other(x):\n  return x * 2", "",
        "def twice(x):\n  raise ValueError", "def twice(x):\n  raise SystemExit(0)",
        "raise SystemExit(0)", "twice = 4", "def twice(x):\n  import os\n  os._exit(0)"}) {
    EXPECT_EQ(sandbox()->judge(twice(program)), Verdict::kFailed) << program;
  }
  EXPECT_EQ(sandbox()->judge(twice("def twice(x):\n  while True: pass")), Verdict::kTimedOut);
  EXPECT_EQ(sandbox()->judge(twice("while True: pass")), Verdict::kTimedOut);
}

// Code that knows all of the machinery cannot make its own verdict.
TEST_F(Sandbox, TheVerdictIsOutOfReachOfTheJudgedCode) {
  for (const char* program :
       {"import __main__, os; os.write(3, __main__.token); os._exit(0)",
        "import os\nfor fd in range(64):\n  try: os.write(fd, b'passed')\n"
        "  except OSError: pass\nos._exit(0)",
        "import os\ndef twice(x):\n  os.write(5, b'passed')\n  os.write(4, b'passed\\n')",
        // answers whatever is asked, before and after it is
        "import os\nfor v in ({'i': '4'}, 'abab', None):\n"
        "  os.write(4, b'{\"value\": null}\\n')\ndef twice(x): return x",
        "class Same:\n  def __eq__(self, other): return True\n  def __req__(self, o): return 1\n"
        "def twice(x): return Same()",
        "class Same(int):\n  def __eq__(self, other): return True\n"
        "def twice(x): return Same()",
        "import builtins\nbuiltins.AssertionError = type('A', (BaseException,), {})\n"
        "def twice(x): return x",
        "import __main__\n__main__.pack = lambda x: {'o': []}\ndef twice(x): return x",
        "import __main__\n__main__.send = lambda f, v: f.write(b'{\"value\": {}}\\n')\n"
        "def twice(x): return x",
        "import os\ndef twice(x):\n  os.write(4, b'[' * 1000000 + b'\\n')\n  os._exit(0)",
        "import os\ndef twice(x):\n  os.write(4, b'{\"error\": \"SystemExit\"}\\n')",
        "import os\ndef twice(x):\n  os.write(4, b'{\"error\": \"exit\"}\\n')",
        "import os\ndef twice(x):\n  os.write(4, b'{\"error\": [1]}\\n')",
        "import os\ndef twice(x):\n  while True: os.write(4, b'x' * 65536)",
        "import gc, sys, os\nfor f in (sys._getframe(1), sys._getframe(0)):\n"
        "  f.f_globals['function'] = lambda x: 4\ndef twice(x): return 4"}) {
    EXPECT_NE(sandbox()->judge(twice(program)), Verdict::kPassed) << program;
  }
}

TEST_F(Sandbox, ValuesComeBackAsTheyWere) {
  const std::string values =
      "[None, True, 0, -7, 10 ** 4000, 0.1, float('inf'), -0.0, 1e-320, 2 + 3j, '', 'ä\\n\\ud800',"
      " b'\\0\\xff', (), (1,), [], [[[]]], set(), {1, 'a'}, frozenset([(1, 2)]), {},"
      " {1: 'a', (1, 2): [3], None: {}}, range(1, 10, 3)]";
  EXPECT_EQ(
      sandbox()->judge({.program = "def same(x): return x",
                        .function = "same",
                        .helpers = "def same(",
                        .tests = "for value in " + values +
                                 ":\n  got = same(value)\n"
                                 "  assert type(got) is type(value) and repr(got) == repr(value)\n"
                                 "nan = same(float('nan'))\nassert nan != nan\n"}),
      Verdict::kPassed);
  EXPECT_EQ(sandbox()->judge({.program = "def f(n):\n  yield from range(n)",
                              .function = "f",
                              .helpers = "",
                              .tests = "assert f(3) != [0, 1, 2]\nassert list(f(3)) == [0, 1, 2]\n"
                                       "assert sorted(f(2)) == [0, 1]\n"}),
            Verdict::kPassed);
  EXPECT_EQ(sandbox()->judge({.program = "def f(n): return [0][n]",
                              .function = "f",
                              .helpers = "",
                              .tests = "assert f(0) == 0\ntry:\n  f(1)\n  assert False, 1\n"
                                       "except IndexError:\n  pass\n"}),
            Verdict::kPassed)
      << "tests may expect an exception";
}

TEST(PathGate, LetsThroughWhatIsReadableAndTheFoldersAbove) {
  const PathGate gate({"/usr/lib", "/opt/python/bin/python3.11"});
  for (const char* path : {"/", "/usr", "/usr/", "/usr/lib", "/usr/lib/x/y", "//usr///lib/./x",
                           "/opt/python/bin/python3.11", "/opt", "/usr/lib/a..b", "/usr/lib/..."}) {
    EXPECT_TRUE(gate.lets_through(path)) << path;
  }
  for (const char* path : {"", "usr/lib", "/usr/lib64", "/usr/libx", "/usr/bin", "/etc", "/opt/x",
                           "/opt/python/bin/python3", "/usr/lib/..", "/usr/lib/../../etc",
                           "/usr/lib/x/../y", "/..", "/proc/self/root/usr/lib"}) {
    EXPECT_FALSE(gate.lets_through(path)) << path;
  }
}

}  // namespace
}  // namespace dmc::sandbox
