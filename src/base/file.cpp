#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/leftovers.h"
#include "base/mapping_guard.h"
#include "base/quoted.h"

namespace dmc {
namespace fs = std::filesystem;

namespace {

constexpr size_t kLongestPath = 300;  // characters in a sentence

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return S_ISSOCK(mode) ? "a socket" : "no file";
}

Error unreadable(const fs::path& path, const std::string& why) {
  return data_error(printable(path.string(), kLongestPath) + ": " + why);
}

}  // namespace

bool is_there(const fs::path& path) noexcept {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

// Without O_NONBLOCK opening a FIFO waits for somebody who writes.
RegularFile::RegularFile(const fs::path& path)
    : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)) {
  if (fd_ < 0) throw unreadable(path, std::string("cannot be opened: ") + std::strerror(errno));
  struct stat status {};
  const bool known = ::fstat(fd_, &status) == 0;
  if (known && S_ISREG(status.st_mode)) {
    size_ = static_cast<size_t>(status.st_size);
    return;
  }
  ::close(fd_);
  throw unreadable(path, std::string("is ") + (known ? kind_of(status.st_mode) : "unknown") +
                             ", expected a regular file");
}

RegularFile::~RegularFile() { ::close(fd_); }

MappedFile::MappedFile(const fs::path& path) : path_(path), data_(MAP_FAILED) {
  const RegularFile file(path);
  size_ = file.size();
  if (size_ == 0) throw unreadable(path, "is empty");
  data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  if (data_ == MAP_FAILED) {
    throw unreadable(path, std::string("cannot be mapped: ") + std::strerror(errno));
  }
  watch_mapping(data_, size_);
}

MappedFile::~MappedFile() {
  if (data_ == MAP_FAILED) return;
  forget_mapping(data_);
  ::munmap(data_, size_);
}

void MappedFile::require_whole() const {
  if (!mapping_was_cut(data_)) return;
  throw unreadable(path_, "was cut short, or its disk failed, while it was read");
}

bool write_all(int descriptor, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

AtomicFile::AtomicFile(const fs::path& path)
    : path_(path),
      temporary_(path.string() + std::string(kTemporaryMark) + std::to_string(::getpid())) {
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("create");
  ::flock(fd_, LOCK_EX | LOCK_NB);  // says that it is being written, where the system has locks
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t size) {
  if (!write_all(fd_, {static_cast<const char*>(data), size})) fail("write");
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("write");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename");
  ::close(fd_);
  fd_ = -1;
  // The rename itself must survive a power cut too; a file system that cannot sync a folder
  // gives no way to do better.
  const fs::path folder = path_.has_parent_path() ? path_.parent_path() : fs::path(".");
  const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
}

void AtomicFile::fail(const std::string& verb) const {
  throw internal_error(path_.string() + ": cannot " + verb + ": " + std::strerror(errno) +
                       "; what was there before is unchanged");
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

std::string read_text_file(const fs::path& path, size_t limit) {
  const RegularFile file(path);
  if (file.size() > limit) {
    throw unreadable(path, "has " + std::to_string(file.size()) + " bytes, the limit is " +
                               std::to_string(limit));
  }
  std::string text(file.size(), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t count = ::read(file.descriptor(), text.data() + filled, text.size() - filled);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw unreadable(path, std::string("cannot be read: ") + std::strerror(errno));
    if (count == 0) break;  // somebody has made it shorter
    filled += static_cast<size_t>(count);
  }
  text.resize(filled);
  return text;
}

}  // namespace dmc
