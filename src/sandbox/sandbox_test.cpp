// What generated code must not be able to do. Each attack asserts that it was stopped by counting
// as a failure; what it tried to reach is real.
#include "sandbox/sandbox.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/error.h"

namespace dmc::sandbox {
namespace {

namespace fs = std::filesystem;

const PythonSandbox* sandbox() {
  static const auto made = []() -> const PythonSandbox* {
    try {
      return new PythonSandbox({.cpu_seconds = 2, .wall_seconds = 20});
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
  EXPECT_EQ(sandbox()->run("assert sum(range(10)) == 45"), Verdict::kPassed);
  EXPECT_EQ(sandbox()->run("from typing import List\nimport math, re, random, collections, heapq\n"
                           "import itertools, functools, string, datetime, copy, json, hashlib\n"
                           "assert math.factorial(20) == 2432902008176640000\n"
                           "print('lost', flush=True)\n"),
            Verdict::kPassed);
  EXPECT_EQ(sandbox()->run(std::string(1 << 20, '#') + "\nx = 'ä'\nassert len(x) == 1"),
            Verdict::kPassed)
      << "longer than a pipe holds";
}

// What the attacks below import is there: none of them fails for want of a module.
TEST_F(Sandbox, HasTheModulesTheAttacksNeed) {
  for (const char* program :
       {"import os, sys, time, resource, fcntl, mmap, threading, subprocess, _socket",
        "import ctypes\nassert ctypes.CDLL(None).getpid() > 0", "assert bytearray(10 * 2**20)",
        "import sysconfig\nopen(sysconfig.get_path('stdlib') + '/os.py')"}) {
    EXPECT_EQ(sandbox()->run(program), Verdict::kPassed) << program;
  }
}

TEST_F(Sandbox, FailuresAreFailures) {
  for (const char* program :
       {"assert 1 == 2", "1 / 0", "def broken(:", "raise SystemExit(0)", "import os; os._exit(0)",
        "import sys; sys.exit()", "import os; os.write(3, b'0' * 32); os._exit(0)",
        "import ctypes; ctypes.string_at(0)", "def f(): f()\nf()", "import numpy"}) {
    EXPECT_EQ(sandbox()->run(program), Verdict::kFailed) << program;
  }
}

TEST_F(Sandbox, EndlessLoopsAndSleepsTimeOut) {
  EXPECT_EQ(sandbox()->run("while True: pass"), Verdict::kTimedOut);
  EXPECT_EQ(sandbox()->run("import os\nos.close(3)\nwhile True: pass"), Verdict::kFailed)
      << "closing the result's pipe is giving up";
  const PythonSandbox impatient({.cpu_seconds = 2, .wall_seconds = 5});
  EXPECT_EQ(impatient.run("import time\ntime.sleep(1000)"), Verdict::kTimedOut);
}

TEST_F(Sandbox, MakesNoProcessesOrThreads) {
  for (const char* program :
       {"import os\nwhile True: os.fork()", "import os\nassert os.fork() >= 0",
        "import subprocess\nsubprocess.run(['/bin/true'])",
        "import os\nassert not os.system('true')",
        "import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()",
        "import os\nos.execv('/bin/sh', ['sh', '-c', 'kill -9 -1'])",
        "import ctypes\nassert ctypes.CDLL(None).vfork() >= 0"}) {
    EXPECT_EQ(sandbox()->run(program), Verdict::kFailed) << program;
  }
}

TEST_F(Sandbox, TakesNoMoreMemoryThanItsLimit) {
  EXPECT_EQ(sandbox()->run("x = bytearray(10 * 2**30)"), Verdict::kFailed);
  EXPECT_EQ(sandbox()->run("import mmap\nm = mmap.mmap(-1, 10 * 2**30)"), Verdict::kFailed);
  EXPECT_NE(sandbox()->run("x = []\nwhile True: x.append(bytearray(2**24))"), Verdict::kPassed);
}

TEST_F(Sandbox, ReachesNoNetwork) {
  for (const char* program : {"import _socket as s\ns.socket(s.AF_INET, s.SOCK_STREAM)",
                              "import _socket as s\ns.socket(s.AF_UNIX, s.SOCK_STREAM)",
                              "import _socket as s\ns.socketpair()"}) {
    EXPECT_EQ(sandbox()->run(program), Verdict::kFailed) << program;
  }
}

// Files and environment of this very process.
TEST_F(Sandbox, NeitherReadsNorWritesFiles) {
  const TempFolder temp;
  const fs::path folder = temp.path();
  std::ofstream(folder / "secret") << "secret";
  const std::string name = (folder / "secret").string();
  const std::string pid = std::to_string(getpid());
  const std::vector<std::string> attacks = {
      "open('" + name + "')",
      "open('" + name + "', 'a')",
      "open('" + name + "2', 'w')",
      "import os\nos.unlink('" + name + "')",
      "import os\nos.rename('" + name + "', '/tmp/x')",
      "import os\nos.truncate('" + name + "', 0)",
      "import os\nos.chmod('" + name + "', 0)",
      "import os\nos.utime('" + name + "')",
      "import os\nos.mkdir('" + name + "2')",
      "import os\nos.symlink('/etc', '" + name + "2')",
      "import os\nos.link('" + name + "', '" + name + "2')",
      "import os\nos.listdir('" + folder.string() + "')",
      "import os\nos.listdir('/')",
      "import os\nos.chdir('/')",
      "import os\nos.memfd_create('x')",
      "open('/etc/passwd')",
      "open('/proc/" + pid + "/environ', 'rb')",
      "open('/proc/" + pid + "/mem', 'rb')",
      "open('/proc/self/mem', 'wb')",
      "import os\nos.write(0, b'x')",
      "import os\nos.kill(" + pid + ", 9)",
      "import os\nos.kill(-1, 9)",
      "import resource\nresource.prlimit(" + pid + ", resource.RLIMIT_NOFILE, (1, 1))",
      "import fcntl\nfcntl.fcntl(3, fcntl.F_SETOWN, " + pid + ")",
      "import ctypes\nassert ctypes.CDLL(None).ptrace(16, " + pid + ", 0, 0) == 0"};
  for (const std::string& program : attacks) {
    EXPECT_EQ(sandbox()->run(program), Verdict::kFailed) << program;
  }
  EXPECT_TRUE(fs::exists(name));
  EXPECT_EQ(fs::file_size(name), 6u);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
}

TEST_F(Sandbox, KnowsNothingOfItsParent) {
  setenv("DMC_SANDBOX_SECRET", "x", 1);
  const int open_here = dup(1);  // not close-on-exec
  EXPECT_EQ(sandbox()->run("import os\nassert not [k for k in os.environ if 'SECRET' in k]"),
            Verdict::kPassed);
  EXPECT_EQ(sandbox()->run("import os\nfor fd in range(4, 64):\n  try:\n    os.fstat(fd)\n"
                           "  except OSError: continue\n  raise SystemExit(fd)"),
            Verdict::kPassed)
      << "only the program, null and the result are open";
  close(open_here);
}

}  // namespace
}  // namespace dmc::sandbox
