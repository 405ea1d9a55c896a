// GGUF files made here, whole and damaged. Parity with the `gguf` library:
// tests/parity/test_gguf.py.
#include "base/gguf.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <cstring>
#include <fstream>
#include <functional>

#include "base/rng.h"
#include "base/temp_folder.h"

namespace dmc {
namespace {

constexpr uint32_t kU32 = 4, kBool = 7, kText = 8, kArray = 9, kF32Tensor = 0, kQ4_0 = 2,
                   kIQ4_XS = 23;

// What a file is made of; fields are changed to damage it.
struct Parts {
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t tensors = 2, keys = 5;
  uint64_t name_size = 4;  // of key "size"
  uint32_t size_type = kU32;
  uint32_t list_type = kText;
  uint64_t list_count = 2;
  uint32_t alignment = 32;
  std::string second_key = "flag", second_tensor = "b";
  uint32_t dimensions = 2, type = kQ4_0;
  uint64_t extent = 32, rows = 3, offset = 64;
  size_t data = 64 + 54;
};

class Writer {
 public:
  template <class T>
  Writer& put(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Writer& text(const std::string& text) {
    put<uint64_t>(text.size());
    bytes_ += text;
    return *this;
  }
  std::string bytes_;
};

std::string file_of(const Parts& p) {
  Writer w;
  w.bytes_ = p.magic;
  w.put(p.version).put(p.tensors).put(p.keys);
  w.put(p.name_size).bytes_ += "size";
  w.put(p.size_type).put<uint32_t>(7);
  w.text(p.second_key).put(kBool).put<uint8_t>(1);
  w.text("list").put(kArray).put(p.list_type).put(p.list_count).text("one").text("two");
  w.text("name").put(kText).text("tiny");
  w.text("general.alignment").put(kU32).put(p.alignment);
  w.text("a").put<uint32_t>(1).put<uint64_t>(16).put(kF32Tensor).put<uint64_t>(0);
  w.text(p.second_tensor).put(p.dimensions).put(p.extent).put(p.rows).put(p.type).put(p.offset);
  w.bytes_.resize((w.bytes_.size() + 31) / 32 * 32 + p.data, '\x11');
  return w.bytes_;
}

class Gguf : public testing::Test {
 protected:
  std::filesystem::path write(const std::string& bytes) const {
    const auto path = folder_.path() / "tiny.gguf";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  // The sentence about a file, "" if it is read.
  std::string complaint(const std::string& bytes) const {
    try {
      const GgufFile file(write(bytes));
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData);
      EXPECT_NE(std::string(error.what()).find("tiny.gguf"), std::string::npos);
      return error.what();
    }
  }
  const TempFolder folder_;
};

TEST_F(Gguf, SaysWhatTheFileSays) {
  const GgufFile file(write(file_of({})));
  EXPECT_EQ(file.size("size", 0, 10), 7);
  EXPECT_TRUE(file.boolean("flag"));
  EXPECT_EQ(file.text("name"), "tiny");
  EXPECT_EQ(file.texts("list"), (std::vector<std::string_view>{"one", "two"}));
  const GgufTensor& b = file.tensors().at("b");
  EXPECT_EQ(b.shape, (std::vector<int64_t>{3, 32}));
  EXPECT_EQ(b.type->name, "Q4_0");
  EXPECT_EQ(b.bytes.size(), 54u);
  EXPECT_EQ(b.bytes.data() - file.tensors().at("a").bytes.data(), 64);
  EXPECT_THROW(file.size("size", 0, 6), Error);
  EXPECT_THROW(file.size("nothing", 0, 6), Error);
  EXPECT_THROW(file.text("size"), Error);
  EXPECT_THROW(file.texts("name"), Error);
  EXPECT_THROW(file.numbers("list"), Error);
  EXPECT_TRUE(is_gguf(folder_.path() / "tiny.gguf"));
  EXPECT_FALSE(is_gguf(folder_.path()));
}

// A file of /proc whose first bytes this thread can choose.
TEST_F(Gguf, WhatHasNoSizeIsNotRead) {
  char name[16];
  ASSERT_EQ(::prctl(PR_GET_NAME, name), 0);
  ASSERT_EQ(::prctl(PR_SET_NAME, "GGUF"), 0);
  EXPECT_FALSE(is_gguf("/proc/thread-self/comm"));
  ::prctl(PR_SET_NAME, name);
}

TEST_F(Gguf, EveryDamageIsNamed) {
  const std::pair<std::function<void(Parts*)>, const char*> kDamages[] = {
      {[](Parts* p) { p->magic = "GGML"; }, "not a GGUF file"},
      {[](Parts* p) { p->version = 1; }, "version 1"},
      {[](Parts* p) { p->version = 3u << 24; }, "big end"},
      {[](Parts* p) { p->tensors = 1u << 30; }, "limits"},
      {[](Parts* p) { p->keys = UINT64_MAX; }, "limits"},
      {[](Parts* p) { p->name_size = UINT64_MAX; }, "truncated or damaged"},
      {[](Parts* p) { p->name_size = 600; }, "truncated or damaged"},
      {[](Parts* p) { p->size_type = 99; }, "type 99"},
      {[](Parts* p) { p->list_type = kArray; }, "arrays of arrays"},
      {[](Parts* p) { p->list_count = uint64_t{1} << 62; }, "truncated or damaged"},
      {[](Parts* p) { p->list_type = 10, p->list_count = uint64_t{1} << 61; }, "truncated"},
      {[](Parts* p) { p->alignment = 48; }, "power of two"},
      {[](Parts* p) { p->alignment = 0; }, "general.alignment"},
      {[](Parts* p) { p->second_key = "size"; }, "appears twice"},
      {[](Parts* p) { p->second_tensor = "a"; }, "appears twice"},
      {[](Parts* p) { p->dimensions = 0; }, "0 dimensions"},
      {[](Parts* p) { p->dimensions = 1000; }, "1000 dimensions"},
      {[](Parts* p) { p->type = kIQ4_XS; }, "IQ4_XS, which is not supported"},
      {[](Parts* p) { p->type = 77; }, "type 77"},
      {[](Parts* p) { p->extent = 33; }, "whole blocks of 32"},
      {[](Parts* p) { p->extent = 0; }, "is 0"},
      {[](Parts* p) { p->extent = uint64_t{1} << 63; }, "overflows"},
      {[](Parts* p) { p->rows = uint64_t{1} << 58; }, "overflows"},
      {[](Parts* p) { p->rows = 4; }, "truncated"},
      {[](Parts* p) { p->offset = 65; }, "alignment"},
      {[](Parts* p) { p->offset = 32; }, "overlap"},
      {[](Parts* p) { p->offset = UINT64_MAX - 31; }, "truncated"},
      {[](Parts* p) { p->data = 0; }, "truncated"},
  };
  for (const auto& [damage, sentence] : kDamages) {
    Parts parts;
    damage(&parts);
    EXPECT_NE(complaint(file_of(parts)).find(sentence), std::string::npos)
        << "expected " << sentence << ", got: " << complaint(file_of(parts));
  }
}

TEST_F(Gguf, NoTruncationIsRead) {
  const std::string whole = file_of({});
  for (size_t size = 1; size < whole.size(); ++size) {
    EXPECT_NE(complaint(whole.substr(0, size)), "") << size;
  }
}

// Whatever bytes change, what is handed out lies inside of the file.
TEST_F(Gguf, RandomDamageReadsNothingOutside) {
  const std::string whole = file_of({});
  for (uint64_t round = 0; round < 2000; ++round) {
    std::string bytes = whole;
    for (uint64_t i = 0; i < 3; ++i) {
      const uint64_t draw = random_bits(1, round, i);
      bytes[draw % bytes.size()] = static_cast<char>(draw >> 56);
    }
    try {
      const GgufFile file(write(bytes));
      volatile unsigned sum = 0;
      for (const auto& [name, tensor] : file.tensors()) {
        for (std::byte byte : tensor.bytes) sum = sum + static_cast<unsigned>(byte);
      }
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kData);
    }
  }
}

}  // namespace
}  // namespace dmc
