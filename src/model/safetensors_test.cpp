#include "model/safetensors.h"
#include "base/file.h"
#include "base/temp_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "base/rng.h"

namespace dmc::model {
namespace {

namespace fs = std::filesystem;

class SafetensorsTest : public testing::Test {
 protected:
  fs::path write(const std::string& name, const std::string& bytes) const {
    std::ofstream(dir_ / name, std::ios::binary) << bytes;
    return dir_ / name;
  }
  // A file of this header and so many bytes of data.
  fs::path file(const std::string& header, size_t data_bytes) const {
    const uint64_t size = header.size();
    std::string bytes(sizeof size, '\0');
    std::memcpy(bytes.data(), &size, sizeof size);
    return write("x.safetensors", bytes + header + std::string(data_bytes, 'x'));
  }

  const TempFolder folder_of_test_;
  const fs::path dir_ = folder_of_test_.path();
};

// The sentence of the Error that `fn` throws, which must name `file` and be about data.
template <class Fn>
std::string complaint(const fs::path& file, Fn&& fn) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kData);
    EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one sentence, one line";
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

TensorView view_of(const std::vector<float>& values, std::vector<int64_t> shape) {
  return {DType::kF32, std::move(shape), std::as_bytes(std::span(values))};
}

TEST_F(SafetensorsTest, WhatIsWrittenIsRead) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6}, scalar = {7};
  const fs::path path = dir_ / "model.safetensors";
  write_safetensors(
      path,
      {{"a", view_of(a, {2, 3})}, {"s", view_of(scalar, {})}, {"e", {DType::kF16, {0, 4}, {}}}},
      {{"k", "v"}});
  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.metadata().at("k"), "v");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  const TensorView& read = file.tensors().at("a");
  EXPECT_EQ(read.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(read.bytes.data(), a.data(), sizeof(float) * a.size()), 0);
  EXPECT_EQ(file.tensors().at("e").numel(), 0);
}

TEST_F(SafetensorsTest, EveryTruncationIsRefused) {
  const std::vector<float> a(10, 1.0f);
  const fs::path path = dir_ / "whole.safetensors";
  write_safetensors(path, {{"a", view_of(a, {10})}});
  const std::string whole = read_text_file(path);
  for (size_t n = 0; n < whole.size(); ++n) {
    const fs::path cut = write("cut.safetensors", whole.substr(0, n));
    complaint(cut, [&] { SafetensorsFile{cut}; });
  }
}

// Bytes flipped at random: refused, or read as some other valid file; never a crash.
TEST_F(SafetensorsTest, DamagedHeadersNeverCrash) {
  const std::vector<float> a(10, 1.0f);
  const fs::path path = dir_ / "whole.safetensors";
  write_safetensors(path, {{"a", view_of(a, {10})}, {"b", view_of(a, {5, 2})}});
  const std::string whole = read_text_file(path);
  Rng rng(1);
  int refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string damaged = whole;
    for (uint64_t i = 0; i <= rng.below(3); ++i) {
      damaged[rng.below(150)] = static_cast<char>(rng.below(256));
    }
    const fs::path copy = write("damaged.safetensors", damaged);
    try {
      const SafetensorsFile file(copy);
      for (const auto& [name, view] : file.tensors()) {
        ASSERT_EQ(view.bytes.size(), static_cast<size_t>(view.numel()) * dtype_size(view.dtype));
      }
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST_F(SafetensorsTest, LyingHeadersAreRefused) {
  const struct {
    const char* header;
    size_t data;
    const char* why;
  } kLies[] = {
      {R"([1])", 0, "not a JSON object"},
      {R"({"a":)", 0, "not valid JSON"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "truncated"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "need 8 bytes"},
      {R"({"a":{"dtype":"F7","shape":[1],"data_offsets":[0,4]}})", 4, "not supported"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "whole numbers"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}})", 4,
       "overflows"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 8, "truncated"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "hole"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "belong to none"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "overlap"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
       R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "twice"},
      {R"({"__metadata__":{"n":1}})", 0, "strings"},
  };
  for (const auto& lie : kLies) {
    const fs::path path = file(lie.header, lie.data);
    const std::string said = complaint(path, [&] { SafetensorsFile{path}; });
    EXPECT_NE(said.find(lie.why), std::string::npos) << lie.header << "\n" << said;
  }
  const fs::path deep = file(std::string(100000, '[') + std::string(100000, ']'), 0);
  complaint(deep, [&] { SafetensorsFile{deep}; });
}

TEST_F(SafetensorsTest, ShardsAreReadThroughTheIndex) {
  const std::vector<float> a = {1}, b = {2};
  write_safetensors(dir_ / "one.safetensors", {{"a", view_of(a, {1})}});
  write_safetensors(dir_ / "two.safetensors", {{"b", view_of(b, {1})}});
  const fs::path index = write("model.safetensors.index.json",
                               R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const WeightsDirectory weights(dir_);
  const std::vector<int64_t> one = {1}, two = {2};
  EXPECT_EQ(weights.require("b", one).numel(), 1);
  EXPECT_NE(complaint(dir_, [&] { weights.require("c", one); }).find("missing"), std::string::npos);
  EXPECT_NE(complaint(dir_, [&] { weights.require("a", two); }).find("[1]"), std::string::npos);

  write("model.safetensors.index.json",
        R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})");
  EXPECT_NE(complaint(dir_, [&] { WeightsDirectory{dir_}; }).find("\"b\" is not in this file"),
            std::string::npos);
  write("model.safetensors.index.json", R"({"weight_map":{"a":"three.safetensors"}})");
  complaint(dir_ / "three.safetensors", [&] { WeightsDirectory{dir_}; });
  write("model.safetensors.index.json", R"({"weight_map":{}})");
  complaint(index, [&] { WeightsDirectory{dir_}; });
  for (const char* name : {"../one.safetensors", "/one.safetensors", "..", ""}) {
    write("model.safetensors.index.json", std::string(R"({"weight_map":{"a":")") + name + "\"}}");
    complaint(index, [&] { WeightsDirectory{dir_}; });
  }
}

TEST_F(SafetensorsTest, AFailedWriteLeavesTheOldFileAndNoOther) {
  const std::vector<float> a = {1};
  const fs::path path = dir_ / "model.safetensors";
  write_safetensors(path, {{"a", view_of(a, {1})}});
  const std::string before = read_text_file(path);
  EXPECT_THROW(write_file_atomically(dir_ / "no/such/folder/file", "x"), Error);
  EXPECT_THROW(write_file_atomically(dir_, "x"), Error) << "a folder cannot be replaced";
  EXPECT_EQ(read_text_file(path), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), {}), 1) << "no temporary file stays";
}

// While it lives, no file may grow past `bytes`: what a full disk looks like to write().
class SmallDisk {
 public:
  explicit SmallDisk(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_limit_);
    const rlimit limit = {bytes, old_limit_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallDisk() {
    ::setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  void (*old_handler_)(int);
  rlimit old_limit_{};
};

TEST_F(SafetensorsTest, AFullDiskLeavesTheOldFileByteForByte) {
  const std::vector<float> small(4, 1.0f), large(100'000, 2.0f);
  const fs::path path = dir_ / "model.safetensors";
  write_safetensors(path, {{"a", view_of(small, {4})}});
  const std::string before = read_text_file(path);
  for (rlim_t room : {0, 1, 100, 4096, 399'999}) {
    std::string said;
    {
      const SmallDisk disk(room);
      try {
        write_safetensors(path, {{"a", view_of(large, {100'000})}});
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kInternal);
        said = error.what();
      }
    }
    EXPECT_NE(said.find(path.string() + ": cannot write: "), std::string::npos) << room << said;
    EXPECT_EQ(read_text_file(path), before) << room;
    EXPECT_EQ(std::distance(fs::directory_iterator(dir_), {}), 1) << "no temporary file stays";
  }
}

TEST_F(SafetensorsTest, PicklesAreNamedWithTheRemedy) {
  std::ofstream(dir_ / "pytorch_model.bin") << "x";
  const std::string said = complaint(dir_, [&] { WeightsDirectory{dir_}; });
  EXPECT_NE(said.find("pytorch_model.bin"), std::string::npos);
  EXPECT_NE(said.find("save_pretrained"), std::string::npos);
}

}  // namespace
}  // namespace dmc::model
