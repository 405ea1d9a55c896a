// The compressed KV cache: for every (sequence, layer, KV head), a *stream*, a list of closed slots
// in pages and one open slot that still takes tokens in. Streams of one sequence differ in length.
// All pages come from one pool. Pages hold closed slots only: written once, then immutable, so a
// fork shares them; the open slot lives in the stream's state in f32.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "kernels/rope.h"
#include "policy/policy.h"

namespace dmc::cache {

struct CacheConfig {
  int layers = 0;
  int kv_heads = 0;
  int query_heads = 0;
  int head_dim = 0;
  int window = 12;                // tokens of a segment its slot averages; 0: all of them
  int page_slots = 16;            // slots in a page
  DType slot_type = DType::kF32;  // of closed slots, as PageFormat's; open ones stay f32
  // Null: decisions are all there is. Else a policy that may drop slots:
  const policy::Policy* policy = nullptr;
  // with a budget (policy::Budget): slots that a stream may hold, at least the policy's
  // least_budget; 0: a slot for every `cr` tokens seen (for SnapKV: of a prompt at its end);
  int64_t budget = 0;
  double cr = 1.0;
  // Newest tokens that are slots of their own, raw: a token's decision comes into force when the
  // token so many behind it comes.
  int64_t delay = 0;
  bool newest_weighs_one = false;  // policy::Carry::kBesideNewest
  // Scores grow by the logarithm of the number of tokens in a slot: a mean of n counts as n do.
  bool mass_term = false;
  int64_t max_pages = 0;  // 0: grow as needed; else Error(kExhausted) once all are in use
  // Rotary angles applied to pooled keys with the position of the segment's newest token; null for
  // families without rotary embedding. Must outlive the cache.
  const kernels::RopeTable* rope = nullptr;

  int64_t budget_at(int64_t tokens) const { return policy::Budget{budget, cr}.at(tokens); }
  bool tells_slots_apart() const { return delay > 0 || (policy != nullptr && policy->drops()); }
};

using SequenceId = int64_t;

// What a layer hands over for a run of tokens. T is the number of tokens of one sequence (prefill)
// or of sequences with one token each (decode). All row-major f32.
struct LayerTokens {
  int64_t tokens = 0;
  const float* q = nullptr;  // [T][query_heads][d], already rotated
  const float* k = nullptr;  // [T][kv_heads][d], BEFORE rotary, decision channel zeroed
  const float* v = nullptr;  // [T][kv_heads][d]
  const policy::Decision* decisions = nullptr;  // [T][kv_heads]; ignored at position 0
  const float* importance = nullptr;  // [T][kv_heads]; weight of the token in its slot, > 0
  float* out = nullptr;               // [T][query_heads][d]
};

struct CacheBytes {
  int64_t pages = 0;       // pages in use, shared ones once
  int64_t open_slots = 0;  // per-stream state: open slots in f32, decisions on raw tokens
  int64_t tables = 0;      // page tables
  int64_t total() const { return pages + open_slots + tables; }
};

// What a stream of that many slots takes, the open one among them.
CacheBytes stream_bytes(const CacheConfig& config, int64_t slots);

class KvCache {
 public:
  explicit KvCache(const CacheConfig& config);
  ~KvCache();

  SequenceId add_sequence();
  SequenceId fork(SequenceId parent);  // shares closed pages, copies open slots
  void release(SequenceId sequence);   // gives its pages back; the id is not reused

  // One-pass compressed prefill (docs/algorithm.md) of tokens at positions length(sequence)...:
  // takes them into `layer`'s streams and attends. A prompt may come in any number of chunks. When
  // the pages run out (here or in decode), Error(kExhausted): the sequences of that call are then
  // good for release() alone, all others are untouched. Policies that evict (Policy::evict) take a
  // prompt in token by token: what they keep depends on every query on the way.
  void prefill(SequenceId sequence, int layer, const LayerTokens& tokens);

  // One token for each of `sequences` (all different): append or merge, then attend.
  void decode(std::span<const SequenceId> sequences, int layer, const LayerTokens& tokens);

  // Called once per step after all layers took their tokens.
  void advance(SequenceId sequence, int64_t tokens);

  // The prompt that came by prefill() is complete: policies that compress prompts do so now.
  void end_prompt(SequenceId sequence);
  // With a policy that looks at a prompt's last tokens: whether one is begun (or nothing is) and
  // not ended. Its tokens then come by prefill(), a single one too.
  bool in_prompt(SequenceId sequence) const;

  // Pages that nobody holds, and all; the largest int64_t where max_pages is 0.
  int64_t free_pages() const;
  int64_t total_pages() const;
  // Free pages that `tokens` more tokens of a sequence can take at most, by prefill() of at most
  // `at_once` (one of them by decode()), up to and with end_prompt(): as if nothing was compressed
  // any more, with copies of the shared pages that it may write on.
  int64_t pages_for(SequenceId sequence, int64_t tokens, int64_t at_once) const;
  int64_t pages_for(SequenceId sequence, int64_t tokens) const {
    return pages_for(sequence, tokens, tokens);
  }
  int64_t pages_of(SequenceId sequence) const;  // that hold its closed slots, shared ones too

  // What a sequence holds, as bytes, with any policy that shares prefixes; and a new sequence that
  // holds it, to the bit, in a cache that is set up alike. The bytes may be anybody's: Error(kData)
  // says what is wrong with them, Error(kExhausted) that there are too few pages; nothing is taken
  // then.
  std::string save(SequenceId sequence) const;
  SequenceId restore(std::string_view bytes);

  int64_t length(SequenceId sequence) const;                      // tokens seen
  int64_t slots(SequenceId sequence, int layer, int head) const;  // closed, open and raw ones
  int64_t slots(SequenceId sequence) const;                       // sum over layers and heads
  int64_t marked(SequenceId sequence) const;  // of these, those that decisions on raw tokens take
  CacheBytes bytes() const;                   // of all sequences
  const CacheConfig& config() const { return config_; }

  // For tests and export: key (rotated) and value of slot `index` of a stream, the open one last.
  void read_slot(SequenceId sequence, int layer, int head, int64_t index, std::span<float> key,
                 std::span<float> value) const;
  // With a delay or a policy that drops slots: the newest tokens of all slots, in no order, but
  // that of the open slot last.
  std::vector<int64_t> kept_positions(SequenceId sequence, int layer, int head) const;
  // Sum of the importances of the tokens that the open slot averages.
  double open_weight(SequenceId sequence, int layer, int head) const;
  // Throws if page accounting, reference counts or slot counts disagree.
  void check_invariants() const;

 private:
  struct Impl;
  CacheConfig config_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dmc::cache
