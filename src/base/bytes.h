// Numbers as bytes, in the order that this machine has them in memory, and back again. What is read
// comes from a file that anybody may have written: nothing is believed beyond its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/rng.h"

namespace dmc {

class ByteWriter {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
    put_bytes(&value, sizeof value);
  }
  template <class T>
  void put_all(std::span<const T> values) {
    static_assert(std::is_arithmetic_v<T>);
    put_bytes(values.data(), values.size_bytes());
  }
  void put_bytes(const void* data, size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
  }
  const std::string& bytes() const { return bytes_; }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Error(kData) "`what` ends early" where more is asked for than is left.
class ByteReader {
 public:
  ByteReader(std::string_view bytes, std::string what) : left_(bytes), what_(std::move(what)) {}

  template <class T>
  T take() {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    take_bytes(&value, sizeof value);
    return value;
  }
  template <class T>
  void take_all(std::span<T> values) {
    static_assert(std::is_arithmetic_v<T>);
    take_bytes(values.data(), values.size_bytes());
  }
  void take_bytes(void* to, size_t size) {
    require(size);
    if (size > 0) std::memcpy(to, left_.data(), size);
    left_.remove_prefix(size);
  }
  // Whether `count` things of `size` bytes are left: ask before making room for them.
  void require(uint64_t count, uint64_t size = 1) const {
    if (count > left_.size() / size) throw data_error(what_ + " ends early");
  }
  // Error(kData) with this sentence unless it holds.
  void check(bool holds, const char* sentence) const {
    if (!holds) throw data_error(what_ + ": " + sentence);
  }
  std::string_view rest() const { return left_; }
  void require_end() const { check(left_.empty(), "has more bytes than it needs"); }

 private:
  std::string_view left_;
  std::string what_;
};

// Tells bytes apart and finds damage; no protection from those who choose the bytes.
inline uint64_t hash_bytes(std::string_view bytes) {
  uint64_t hash = mix64(bytes.size());
  for (; bytes.size() >= sizeof(uint64_t); bytes.remove_prefix(sizeof(uint64_t))) {
    uint64_t word;
    std::memcpy(&word, bytes.data(), sizeof word);
    hash = mix64(hash ^ word);
  }
  uint64_t word = 0;
  std::memcpy(&word, bytes.data(), bytes.size());
  return mix64(hash ^ word);
}

}  // namespace dmc
