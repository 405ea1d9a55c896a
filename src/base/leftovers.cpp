#include "base/leftovers.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <system_error>
#include <vector>

namespace dmc {
namespace fs = std::filesystem;
namespace {

bool has_temporary_name(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  const size_t mark = name.rfind(kTemporaryMark);
  if (mark == std::string::npos || mark == 0) return false;
  const std::string number = name.substr(mark + kTemporaryMark.size());
  std::error_code error;
  return !number.empty() &&
         std::ranges::all_of(number, [](char c) { return '0' <= c && c <= '9'; }) &&
         fs::is_regular_file(entry.symlink_status(error));
}

// Writers hold a lock as long as they live, which no kill leaves behind. A process id would not
// tell: in a container the next process may well have the same.
bool is_being_written(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return true;
  const bool locked = ::flock(file, LOCK_EX | LOCK_NB) != 0;
  ::close(file);
  return locked;
}

}  // namespace

void remove_leftovers(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (has_temporary_name(entry)) found.push_back(entry.path());
  }
  for (const fs::path& path : found) {
    if (!is_being_written(path)) fs::remove(path, error);
  }
}

}  // namespace dmc
