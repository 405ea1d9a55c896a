// The compressed KV cache for programs that have a decoder of their own: the header of the library
// dmc (docs/embedding.md), which needs nothing else of dmc.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace dmc {

// What a cache is made for. What is out of range is Error(kInvalidArgument) with the member's name
// as its field.
struct KvCacheOptions {
  int layers = 0;
  int kv_heads = 0;
  int query_heads = 0;  // a multiple of kv_heads
  int head_dim = 0;

  // How slots are made and go: "dmc", "dms" or "dmc-delayed" (decisions come with the tokens),
  // "dense", or a method that keeps `budget` slots a head, or one for every `cr` tokens: "h2o",
  // "tova", "window", "snapkv".
  std::string policy = "dmc";
  int64_t budget = 0;
  double cr = 0.0;
  int window = 12;  // dmc, dmc-delayed: tokens that a slot averages at most; 0: all
  int delay = 0;    // dms, dmc-delayed: so many newest tokens stay as they are

  std::string slots = "f32";  // of closed slots in memory: f32, bf16, f16, int8 or fp8
  int page_slots = 16;
  int64_t max_pages = 0;  // of this cache and all that share its pages; 0: as many as it takes

  // Keys are rotated when they are stored (half-split form), with the position of the newest token
  // that their slot holds. 0: they are stored as they come.
  double rope_theta = 0.0;
  int64_t max_tokens = 0;  // with rope_theta: as long as a text can become
};

// A layer's part of `count` tokens that follow each other; row-major f32.
struct LayerTokens {
  int64_t count = 0;
  const float* q = nullptr;  // [count][query_heads][head_dim]; rotated already if anything is
  const float* k = nullptr;  // [count][kv_heads][head_dim]; not rotated if the cache does it
  const float* v = nullptr;  // [count][kv_heads][head_dim]
  // [count][kv_heads]; null: no token is compressed. 1: with dmc the token merges into the newest
  // slot; with dms the one before it goes, with dmc-delayed it merges into this one, when it is no
  // longer among the newest. Other policies do not look.
  const uint8_t* decisions = nullptr;
  // [count][kv_heads], above 0; null: all 1. A token's weight in the mean that its slot is.
  const float* importance = nullptr;
};

// The cache of one text. Copies share pages: fork() is cheap. Calls on caches that share pages wait
// for each other.
class KvCache {
 public:
  explicit KvCache(const KvCacheOptions& options);
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;
  ~KvCache();

  // Takes a layer's tokens in, behind those it holds, and writes to `out`
  // [count][query_heads][head_dim] what their queries read: softmax attention, each token's over
  // the slots as they are when it has been taken in. A step brings the same number of tokens to
  // each layer once, in any order; the text is longer when all layers have them.
  // Error(kInvalidArgument) for a layer that has the step's tokens already; Error(kExhausted) when
  // max_pages are in use: this cache is then good for nothing more, the others are untouched.
  void attend(int layer, const LayerTokens& tokens, float* out);
  // The same for one token of each of several texts, which share pages; tokens.count is theirs.
  static void attend(std::span<KvCache* const> texts, int layer, const LayerTokens& tokens,
                     float* out);
  // The prompt is complete: "snapkv" chooses what it keeps.
  void end_prompt();

  KvCache fork() const;      // the same text, which goes on by itself
  KvCache new_text() const;  // another one, empty, with pages from the same pool

  int64_t length() const;              // tokens that all layers have
  std::vector<int64_t> slots() const;  // [layers][kv_heads]: what is kept of them
  int64_t bytes() const;               // of all caches that share pages
  const KvCacheOptions& options() const;

 private:
  struct Pool;
  struct Text;
  KvCache(std::shared_ptr<Pool> pool, std::unique_ptr<Text> text);
  std::shared_ptr<Pool> pool_;
  std::unique_ptr<Text> text_;
};

}  // namespace dmc
