// One run at a time writes into a folder.
#pragma once

#include <filesystem>

namespace dmc::train {

// Makes a run's folder where it is missing; whether it was. Error(kInvalidArgument) naming --out.
bool make_out_dir(const std::filesystem::path& out_dir);

// Holds OUT/run.lock, which says the owner's process id, as long as it lives. The lock is the
// system's (flock): it ends with the process, however that ends, and a file that a killed run has
// left locks nobody out.
class OutLock {
 public:
  // Makes the folder where it is missing. Error(kInvalidArgument) naming --out if another run has
  // it, or it cannot be made or written in.
  explicit OutLock(const std::filesystem::path& out_dir);
  // Takes the file away, and the folder, if this object made it and it is empty.
  ~OutLock();
  OutLock(const OutLock&) = delete;
  OutLock& operator=(const OutLock&) = delete;

  static constexpr auto kName = "run.lock";

 private:
  bool try_lock();

  std::filesystem::path out_dir_, path_;
  bool made_folder_ = false;
  int file_ = -1;
};

}  // namespace dmc::train
