#include "train/out_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.h"

namespace dmc::train {
namespace fs = std::filesystem;
namespace {

std::string owner_of(int file) {
  std::array<char, 32> text{};
  const ssize_t size = ::pread(file, text.data(), text.size(), 0);
  std::string digits;
  for (ssize_t i = 0; i < size && '0' <= text[i] && text[i] <= '9'; ++i) digits += text[i];
  return digits.empty() ? "another process" : "process " + digits;
}

// Who held the lock before may have taken the file away since it was opened here.
bool is_still_there(int file, const fs::path& path) {
  struct stat ours {
  }, named{};
  return ::fstat(file, &ours) == 0 && ::stat(path.c_str(), &named) == 0 &&
         ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

bool knows_no_locks(int error) { return error == ENOLCK || error == ENOTSUP || error == ENOSYS; }

}  // namespace

bool make_out_dir(const fs::path& out_dir) {
  std::error_code error;
  const bool made = fs::create_directories(out_dir, error);
  if (!error) return made;
  throw invalid_argument("out", "cannot make " + out_dir.string() + ": " + error.message());
}

OutLock::OutLock(const fs::path& out_dir) : out_dir_(out_dir), path_(out_dir / kName) {
  made_folder_ = make_out_dir(out_dir);
  while (!try_lock()) {
  }
  const std::string id = std::to_string(::getpid()) + "\n";
  if (::ftruncate(file_, 0) == 0) {  // it is for people: a full disk does not matter
    [[maybe_unused]] const ssize_t told = ::pwrite(file_, id.data(), id.size(), 0);
  }
}

// False if the file went away meanwhile.
bool OutLock::try_lock() {
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (file_ < 0) {
    throw invalid_argument("out", "cannot write in " + out_dir_.string() + ": " +
                                      std::strerror(errno) + "; name another folder");
  }
  if (::flock(file_, LOCK_EX | LOCK_NB) != 0 && !knows_no_locks(errno)) {
    const std::string owner = owner_of(file_);
    ::close(file_);
    throw invalid_argument("out", out_dir_.string() + " is being written by " + owner +
                                      ", another run; wait for its end, or name another folder");
  }
  if (is_still_there(file_, path_)) return true;
  ::close(file_);
  return false;
}

OutLock::~OutLock() {
  std::error_code ignored;
  fs::remove(path_, ignored);  // before it is unlocked, so that nobody else's goes
  ::close(file_);
  if (made_folder_) fs::remove(out_dir_, ignored);
}

}  // namespace dmc::train
