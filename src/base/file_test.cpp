#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <numeric>

#include "base/error.h"
#include "base/temp_folder.h"

namespace dmc {
namespace {

std::string sentence_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kData);
    return error.what();
  }
  return "no error";
}

class Files : public ::testing::Test {
 protected:
  std::filesystem::path at(const std::string& name) const { return folder_.path() / name; }
  TempFolder folder_;
};

TEST_F(Files, AreReadWholeUpToALimit) {
  write_file_atomically(at("a"), "twelve bytes");
  EXPECT_EQ(read_text_file(at("a"), 12), "twelve bytes");
  EXPECT_NE(sentence_of([&] { read_text_file(at("a"), 11); }).find("has 12 bytes, the limit is 11"),
            std::string::npos);
}

// Each of these waits for ever, or has no end, where it is opened as a file.
TEST_F(Files, OnlyRegularOnesAreOpened) {
  ASSERT_EQ(::mkfifo(at("fifo").c_str(), 0600), 0);
  std::filesystem::create_symlink("/dev/zero", at("zero"));
  std::filesystem::create_symlink(at("fifo"), at("link"));
  const std::pair<std::string, std::string> cases[] = {
      {at("fifo"), "is a FIFO"},    {at("link"), "is a FIFO"},       {at("zero"), "is a device"},
      {"/dev/null", "is a device"}, {folder_.path(), "is a folder"}, {at("none"), "No such file"}};
  for (const auto& [path, found] : cases) {
    for (const std::string& sentence : {sentence_of([&] { read_text_file(path); }),
                                        sentence_of([&] { MappedFile file(path); })}) {
      EXPECT_NE(sentence.find(path), std::string::npos) << sentence;
      EXPECT_NE(sentence.find(found), std::string::npos) << sentence;
    }
  }
}

TEST_F(Files, CirclesAreThereButCannotBeOpened) {
  std::filesystem::create_symlink("circle", at("circle"));
  EXPECT_TRUE(is_there(at("circle")));
  EXPECT_FALSE(is_there(at("none")));
  EXPECT_NE(sentence_of([&] { read_text_file(at("circle")); }).find("symbolic links"),
            std::string::npos);
}

TEST_F(Files, LinksToFilesAreFollowed) {
  write_file_atomically(at("a"), "text");
  std::filesystem::create_symlink("a", at("b"));
  EXPECT_EQ(read_text_file(at("b")), "text");
}

// The mapped pages behind the new end raise SIGBUS.
TEST_F(Files, MappedOneThatIsCutShortIsAnError) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  write_file_atomically(at("a"), std::string(8 * page, 'x'));
  write_file_atomically(at("b"), std::string(8 * page, 'y'));
  const MappedFile cut(at("a")), whole(at("b"));
  ASSERT_EQ(::truncate(at("a").c_str(), static_cast<off_t>(page)), 0);
  const auto sum = [](const MappedFile& file) {
    return std::accumulate(file.bytes().begin(), file.bytes().end(), size_t{0},
                           [](size_t n, std::byte b) { return n + static_cast<size_t>(b); });
  };
  cut.require_whole();  // nothing is known before it is read
  EXPECT_EQ(sum(cut), page * 'x');
  EXPECT_EQ(sum(whole), 8 * page * 'y');
  EXPECT_NE(sentence_of([&] { cut.require_whole(); }).find("cut short"), std::string::npos);
  whole.require_whole();
}

}  // namespace
}  // namespace dmc
