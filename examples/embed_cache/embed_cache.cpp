// Somebody else's decoder on dmc's cache. The decoder is a toy with random weights: what matters is
// where its loop meets the cache, in layer(). It takes a prompt in, forks the cache, and lets two
// texts go on from it side by side.
#include <cmath>
#include <cstdio>
#include <exception>
#include <random>
#include <vector>

#include <dmc.h>

namespace {

constexpr int kLayers = 4, kHeads = 8, kKvHeads = 2, kHeadDim = 32;
constexpr int kHidden = kHeads * kHeadDim, kKv = kKvHeads * kHeadDim;

using Matrix = std::vector<float>;

Matrix random_matrix(int rows, int columns, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(columns)));
  Matrix matrix(static_cast<size_t>(rows) * columns);
  for (float& weight : matrix) weight = normal(random);
  return matrix;
}

// x [tokens][columns] by matrix [rows][columns]: [tokens][rows].
Matrix multiply(const Matrix& x, const Matrix& matrix, int rows, int columns) {
  const size_t tokens = x.size() / columns;
  Matrix y(tokens * rows);
  for (size_t t = 0; t < tokens; ++t) {
    for (int r = 0; r < rows; ++r) {
      float sum = 0.0f;
      for (int c = 0; c < columns; ++c) sum += x[t * columns + c] * matrix[r * columns + c];
      y[t * rows + r] = sum;
    }
  }
  return y;
}

class Decoder {
 public:
  Decoder() {
    std::mt19937 random(1);
    for (int layer = 0; layer < kLayers; ++layer) {
      q_.push_back(random_matrix(kHidden, kHidden, random));
      k_.push_back(random_matrix(kKv, kHidden, random));
      v_.push_back(random_matrix(kKv, kHidden, random));
      out_.push_back(random_matrix(kHidden, kHidden, random));
    }
  }

  // Hidden states [tokens][kHidden] of tokens behind those that the cache holds.
  Matrix run(Matrix hidden, dmc::KvCache& cache) const {
    for (int i = 0; i < kLayers; ++i) layer(i, hidden, cache);
    return hidden;
  }

 private:
  void layer(int i, Matrix& hidden, dmc::KvCache& cache) const {
    const int64_t tokens = static_cast<int64_t>(hidden.size()) / kHidden;
    const Matrix q = multiply(hidden, q_[i], kHidden, kHidden);
    const Matrix k = multiply(hidden, k_[i], kKv, kHidden);
    const Matrix v = multiply(hidden, v_[i], kKv, kHidden);
    // A retrofitted model reads its decisions from a channel of the keys; this toy, by their sign.
    std::vector<uint8_t> decisions;
    for (int64_t row = 0; row < tokens * kKvHeads; ++row) {
      decisions.push_back(k[static_cast<size_t>(row * kHeadDim)] > 0.0f);
    }
    Matrix read(hidden.size());
    cache.attend(i, {tokens, q.data(), k.data(), v.data(), decisions.data()}, read.data());
    const Matrix added = multiply(read, out_[i], kHidden, kHidden);
    for (size_t j = 0; j < hidden.size(); ++j) hidden[j] += added[j];
  }

  std::vector<Matrix> q_, k_, v_, out_;
};

void report(const char* name, const dmc::KvCache& cache) {
  int64_t slots = 0;
  for (int64_t kept : cache.slots()) slots += kept;
  const double seen = static_cast<double>(cache.length()) * kLayers * kKvHeads;
  std::printf("%s: %lld tokens, %.2f of them a slot\n", name,
              static_cast<long long>(cache.length()), seen / static_cast<double>(slots));
}

int run() {
  dmc::KvCacheOptions options;
  options.layers = kLayers;
  options.kv_heads = kKvHeads;
  options.query_heads = kHeads;
  options.head_dim = kHeadDim;
  options.slots = "bf16";
  dmc::KvCache prompt(options);

  const Decoder decoder;
  std::mt19937 random(2);
  decoder.run(random_matrix(100, kHidden, random), prompt);
  report("prompt", prompt);

  dmc::KvCache texts[] = {prompt.fork(), prompt.fork()};
  for (dmc::KvCache& text : texts) {
    Matrix token = random_matrix(1, kHidden, random);
    for (int step = 0; step < 50; ++step) token = decoder.run(token, text);
    report("fork", text);
  }
  report("prompt, as it was", prompt);
  std::printf("all three: %lld bytes\n", static_cast<long long>(prompt.bytes()));
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& error) {  // dmc::Error also has a code and a field
    std::fprintf(stderr, "embed_cache: %s\n", error.what());
    return 1;
  }
}
