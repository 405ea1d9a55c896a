#include "base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/leftovers.h"

namespace dmc {
namespace fs = std::filesystem;

MappedFile::MappedFile(const fs::path& path) : data_(MAP_FAILED) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw data_error(path.string() + ": cannot open: " + std::strerror(errno));
  struct stat status {};
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0) {
    size_ = static_cast<size_t>(status.st_size);
    data_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
  }
  ::close(fd);
  if (data_ == MAP_FAILED) throw data_error(path.string() + ": empty or not a regular file");
}

MappedFile::~MappedFile() {
  if (data_ != MAP_FAILED) ::munmap(data_, size_);
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
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd_, next, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write");
    next += written;
    size -= static_cast<size_t>(written);
  }
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
  std::ifstream in(path, std::ios::binary);
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (!in || error) throw data_error(path.string() + ": cannot be read; is it there?");
  if (size > limit) {
    throw data_error(path.string() + ": has " + std::to_string(size) + " bytes, the limit is " +
                     std::to_string(limit));
  }
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

}  // namespace dmc
