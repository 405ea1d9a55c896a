// Decides for an isolated process which paths it may name.
//
// Landlock keeps it from opening files, but not from learning which there are: stat() and the like
// are none of its rights, and what open() answers differs. So each call that takes a path waits
// until its parent has looked at the path. What the process cannot change meanwhile may then go on:
// it has one thread and shares no memory.
#pragma once

#include <linux/seccomp.h>

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dmc::sandbox {

class PathGate {
 public:
  // What is in `readable` or beneath it may be named, and so may the folders above.
  explicit PathGate(std::vector<std::filesystem::path> readable);

  // Of an absolute path without links followed. ".." is never let through.
  bool lets_through(std::string_view path) const;

  // Answers one call of the process that waits at `listener`: to go on, or that there is no such
  // file. The first execve() of a process, which is its parent's own, must have `may_execute`.
  void answer(int listener, bool* may_execute) const;

 private:
  int decide(const seccomp_notif& call, bool* may_execute) const;

  std::vector<std::string> readable_;
};

}  // namespace dmc::sandbox
