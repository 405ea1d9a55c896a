// Counter-based random numbers: the value depends only on (seed, stream, index), never on what was
// drawn before. So a resumed training run and a request in any batch see the same numbers.
#pragma once

#include <cstdint>

namespace dmc {

// SplitMix64's finalizer (Steele, Lea, Flood 2014): a bijection with full avalanche.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

constexpr uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t index) {
  return mix64(mix64(mix64(seed) ^ stream) ^ index);
}

// Uniform in [0, 1), 53 bits.
constexpr double random_uniform(uint64_t seed, uint64_t stream, uint64_t index) {
  return static_cast<double>(random_bits(seed, stream, index) >> 11) * 0x1.0p-53;
}

// The random number that the token at `position` of a text is drawn with, the same wherever the
// text is written. The stream keeps it apart from other uses of the seed.
constexpr double sampling_uniform(uint64_t seed, int64_t position) {
  return random_uniform(seed, /*stream=*/0x73616d70, static_cast<uint64_t>(position));
}

// A sequential generator over one stream, usable with <random> and std::shuffle.
class Rng {
 public:
  using result_type = uint64_t;
  explicit Rng(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~0ull; }
  uint64_t operator()() { return random_bits(seed_, stream_, index_++); }
  double uniform() { return random_uniform(seed_, stream_, index_++); }
  // Uniform in [0, n); the bias of the modulo is below n / 2^64.
  uint64_t below(uint64_t n) { return (*this)() % n; }

 private:
  uint64_t seed_, stream_, index_ = 0;
};

}  // namespace dmc
