#include "base/leftovers.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "base/temp_folder.h"

namespace dmc {
namespace {

namespace fs = std::filesystem;

size_t entries(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

// Writes half a file in a process of its own, which is then killed.
void killed_writer(const fs::path& path) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    AtomicFile file(path);
    file.write("half", 4);
    [[maybe_unused]] const ssize_t told = write(ready[1], "x", 1);
    for (;;) pause();
  }
  char told = 0;
  ASSERT_EQ(read(ready[0], &told, 1), 1);
  remove_leftovers(path.parent_path());
  EXPECT_EQ(entries(path.parent_path()), 2u) << "somebody writes it";
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
}

TEST(Leftovers, OfKilledWritersAreRemovedAndNothingElse) {
  const TempFolder temp;
  std::ofstream(temp.path() / "model") << "before";
  killed_writer(temp.path() / "model");
  EXPECT_EQ(entries(temp.path()), 2u);
  remove_leftovers(temp.path());
  EXPECT_EQ(entries(temp.path()), 1u);
  EXPECT_EQ(read_text_file(temp.path() / "model"), "before");
}

TEST(Leftovers, OtherNamesLinksAndFoldersStay) {
  const TempFolder temp;
  for (const char* name : {"mine.tmp-x", ".tmp-12", "model.tmp-", "tmp-12", "a.tmp-1.txt"}) {
    std::ofstream(temp.path() / name) << "x";
  }
  fs::create_directory(temp.path() / "folder.tmp-1");
  fs::create_symlink(temp.path() / "tmp-12", temp.path() / "link.tmp-1");
  remove_leftovers(temp.path());
  EXPECT_EQ(entries(temp.path()), 7u);
  remove_leftovers(temp.path() / "not there");
}

TEST(Leftovers, AFileOnItsWayStaysOurs) {
  const TempFolder temp;
  AtomicFile file(temp.path() / "model");
  file.write("all", 3);
  remove_leftovers(temp.path());
  file.commit();
  EXPECT_EQ(read_text_file(temp.path() / "model"), "all");
}

}  // namespace
}  // namespace dmc
