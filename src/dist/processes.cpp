#include "dist/processes.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

extern char** environ;

namespace dmc::dist {
namespace {

constexpr auto kToEnd = std::chrono::seconds(10);  // after SIGTERM

// Who is stopped at so many looks in a row is told of.
constexpr auto kBetweenLooks = std::chrono::seconds(1);
constexpr int kLooks = 3;

std::string why_not() { return std::strerror(errno); }

std::vector<std::string> own_arguments() {
  std::ifstream in("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(in, word, '\0');) words.push_back(word);
  return words;
}

bool sets(const std::string& entry, const std::vector<std::string>& ours) {
  const std::string name = entry.substr(0, entry.find('=') + 1);
  for (const std::string& other : ours) {
    if (other.compare(0, name.size(), name) == 0) return true;
  }
  return false;
}

// This process's own, with what tells `rank` its place.
std::vector<std::string> environment_of(const Place& place, int rank) {
  const std::string number = std::to_string(rank), size = std::to_string(place.size);
  std::vector<std::string> result = {"RANK=" + number,
                                     "LOCAL_RANK=" + number,
                                     "WORLD_SIZE=" + size,
                                     "LOCAL_WORLD_SIZE=" + size,
                                     "MASTER_ADDR=" + place.host,
                                     "MASTER_PORT=" + std::to_string(place.port),
                                     "TORCHELASTIC_RESTART_COUNT=" + place.attempt};
  const std::vector<std::string> ours = result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!sets(*entry, ours)) result.push_back(*entry);
  }
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

// Between fork and exec nothing but system calls is safe: other threads may have held locks.
[[noreturn]] void become(char* const* arguments, char* const* environment, int output,
                         pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);  // it died before that took effect
  const int nothing = open("/dev/null", O_RDWR);
  dup2(nothing, STDIN_FILENO);
  dup2(nothing, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execve("/proc/self/exe", arguments, environment);
  _exit(1);
}

// Of "PID (NAME) STATE ..." the state; a name may hold anything.
bool is_stopped(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/stat");
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const size_t name_end = text.rfind(") ");
  if (name_end == std::string::npos || name_end + 2 >= text.size()) return false;
  const char state = text[name_end + 2];
  return state == 'T' || state == 't';
}

std::string text_of(int file) {
  std::string text;
  std::array<char, 4096> part;
  for (ssize_t got;
       (got = pread(file, part.data(), part.size(), static_cast<off_t>(text.size()))) > 0;) {
    text.append(part.data(), static_cast<size_t>(got));
  }
  return text;
}

// The last sentence that main() wrote of an error; empty: none.
std::string sentence_in(const std::string& text) {
  constexpr std::string_view kMark = "dmc: ";
  const size_t mark = text.rfind(kMark);
  if (mark == std::string::npos) return {};
  const size_t first = mark + kMark.size();
  return text.substr(first, text.find('\n', first) - first);
}

ErrorCode code_of(int exit_code) {
  for (ErrorCode code : {ErrorCode::kInvalidArgument, ErrorCode::kData}) {
    if (dmc::exit_code(code) == exit_code) return code;
  }
  return ErrorCode::kInternal;
}

}  // namespace

Processes::Processes(const Place& place, Warn warn)
    : children_(static_cast<size_t>(place.size - 1)) {
  std::vector<std::string> arguments = own_arguments();
  const pid_t parent = getpid();
  for (size_t i = 0; i < children_.size(); ++i) {
    std::vector<std::string> environment = environment_of(place, static_cast<int>(i) + 1);
    const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
    Child& child = children_[i];
    child.output = memfd_create("dmc-stderr", MFD_CLOEXEC);
    if (child.output >= 0) child.id = fork();
    if (child.id == 0) become(argv.data(), envp.data(), child.output, parent);
    if (child.id < 0) {
      const std::string reason = why_not();
      throw internal_error("cannot start another process: " + reason);
    }
  }
  if (!warn) return;
  std::vector<pid_t> ids;
  for (const Child& child : children_) ids.push_back(child.id);
  watcher_ = std::thread([this, ids, warn] { watch(ids, warn); });
}

void Processes::watch(const std::vector<pid_t>& ids, const Warn& warn) {
  std::vector<int> looks(ids.size(), 0);
  std::unique_lock lock(mutex_);
  while (!ending_.wait_for(lock, kBetweenLooks, [this] { return ends_; })) {
    for (size_t i = 0; i < ids.size(); ++i) {
      looks[i] = is_stopped(ids[i]) ? looks[i] + 1 : 0;
      if (looks[i] != kLooks) continue;
      warn(named(std::to_string(i + 1), static_cast<int>(ids.size()) + 1) +
           " is stopped, and the others wait for it; kill -CONT " + std::to_string(ids[i]) +
           " lets it go on");
    }
  }
}

Processes::~Processes() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  ending_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  for (Child& child : children_) {
    if (child.id > 0 && !child.status) kill(child.id, SIGTERM);
  }
  const auto deadline = std::chrono::steady_clock::now() + kToEnd;
  for (int rank = 1; rank <= static_cast<int>(children_.size()); ++rank) {
    if (children_[static_cast<size_t>(rank - 1)].id <= 0) continue;
    while (!reaped(rank, false).status && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    Child& child = reaped(rank, false);
    if (!child.status) kill(child.id, SIGKILL);
    reaped(rank, true);
  }
  for (Child& child : children_) {
    if (child.output >= 0) close(child.output);
  }
}

Processes::Child& Processes::reaped(int rank, bool wait_for_end) {
  Child& child = children_.at(static_cast<size_t>(rank - 1));
  int status = 0;
  if (!child.status && waitpid(child.id, &status, wait_for_end ? 0 : WNOHANG) == child.id) {
    child.status = status;
  }
  return child;
}

std::optional<Error> Processes::failure(int rank) {
  const Child& child = reaped(rank, false);
  if (!child.status || *child.status == 0) return std::nullopt;
  const std::string name = named(std::to_string(rank), static_cast<int>(children_.size()) + 1);
  if (WIFSIGNALED(*child.status)) {
    const int signal = WTERMSIG(*child.status);
    return internal_error(name + " was ended by signal " + std::to_string(signal) + ", " +
                          strsignal(signal) + "; --resume goes on from the last checkpoint");
  }
  const int code = WEXITSTATUS(*child.status);
  const std::string said = sentence_in(text_of(child.output));
  return Error(code_of(code), said.empty() ? name + " ended with exit code " + std::to_string(code)
                                           : name + ": " + said);
}

void Processes::check() {
  for (int rank = 1; rank <= static_cast<int>(children_.size()); ++rank) {
    if (const std::optional<Error> error = failure(rank)) throw *error;
  }
}

void Processes::wait() {
  for (int rank = 1; rank <= static_cast<int>(children_.size()); ++rank) reaped(rank, true);
}

}  // namespace dmc::dist
