// The compressed cache in a device's memory and which sequence has which of its rows. Its size is
// fixed: a step takes pages on the device, where nobody could wait for more.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "cache/kv_cache.h"
#include "runtime/device/buffer.h"

namespace dmc::runtime {

struct SequenceTableShape {
  int layers, kv_heads, head_dim;
  int window;  // as CacheConfig::window
  DType slot_type;
  int rows;               // sequences at a time, at most
  int64_t max_positions;  // tokens of each
  // With a policy that evicts late: tokens that such a token is seen by; -1: no slot goes.
  int delay = -1;
  // With a policy that evicts: slots that a stream may hold at most; 0: none is evicted.
  int64_t most_slots = 0;
  // With a policy that looks at a prompt's end: tokens whose queries are kept, and their numbers.
  int observes = 0, query_floats = 0;
  int64_t pages = 0;  // 0: for all rows at full length, as far as there is memory

  bool drops() const { return delay >= 0 || most_slots > 0 || observes > 0; }  // slots
};

class SequenceTable {
 public:
  // Error(kExhausted) if the memory that is left does not hold the tables and a page for every
  // stream of one sequence.
  SequenceTable(kernels::cuda::Device& device, const SequenceTableShape& shape);

  cache::SequenceId add();  // Error(kExhausted) if all rows are taken
  // A copy that shares the parent's pages: which are full for good, the others until either writes.
  cache::SequenceId fork(cache::SequenceId parent);
  // A copy that shares nothing, to measure with. Error(kExhausted) if there are too few pages.
  cache::SequenceId copy(cache::SequenceId parent);
  void release(cache::SequenceId sequence);

  int row(cache::SequenceId sequence) const { return find(sequence).row; }
  int64_t length(cache::SequenceId sequence) const { return find(sequence).length; }
  void advance(cache::SequenceId sequence, int64_t tokens);
  // Slots of every stream [layers * kv_heads], the open one included. Waits for the device.
  std::vector<int64_t> slots(cache::SequenceId sequence) const;
  // Of pages in use (shared ones once), open slots and tables of all sequences; waits.
  int64_t bytes() const;
  // Free pages; those that so many more tokens of a sequence can take at most, as
  // KvCache::pages_for, and those that it has: from what settle() saw.
  int64_t free_pages() const;
  int64_t pages_for(cache::SequenceId sequence, int64_t tokens, int64_t at_once) const;
  int64_t pages_of(cache::SequenceId sequence) const;
  // Looks at the tables after launches: waits. Error(kInternal) if slots were dropped for want of a
  // page, which must have been asked for before.
  void settle();

  // Whether the policy looks at prompts and one is begun.
  bool in_prompt(cache::SequenceId sequence) const;
  void begin_prompt(cache::SequenceId sequence) { sequences_.at(sequence).in_prompt = true; }
  void end_prompt(cache::SequenceId sequence) { sequences_.at(sequence).in_prompt = false; }

  kernels::cuda::CacheView view() const;
  const SequenceTableShape& shape() const { return shape_; }
  int64_t pages() const { return free_.size(); }

 private:
  struct Sequence {
    int row;
    int64_t length = 0;
    bool in_prompt = true;
    // Held by all forks of one another, which may share pages.
    std::shared_ptr<const bool> kin = std::make_shared<bool>();
    std::vector<int32_t> closed = {};  // slots of each stream [layers][kv_heads], at the last look
  };

  int64_t stream(const Sequence& of, int layer, int head) const {
    return (int64_t{layer} * shape_.rows + of.row) * shape_.kv_heads + head;
  }
  int64_t copies(const Sequence& of, int64_t growth) const;
  int64_t writable_pages(int64_t closed) const;
  const Sequence& find(cache::SequenceId sequence) const;
  int64_t streams() const { return int64_t{shape_.layers} * shape_.rows * shape_.kv_heads; }
  int64_t pages_that_fit(int64_t page_bytes) const;
  kernels::cuda::Batch batch_of(std::span<const int32_t> rows);
  cache::SequenceId add_copy(cache::SequenceId parent, bool share);

  kernels::cuda::Device& device_;
  SequenceTableShape shape_;
  int64_t max_pages_;               // of a stream
  mutable int64_t free_pages_ = 0;  // at the last look
  mutable bool released_ = false;   // since then
  std::map<cache::SequenceId, Sequence> sequences_;
  std::vector<int> free_rows_;
  cache::SequenceId next_ = 0;

  Buffer<int32_t> closed_, tables_, open_count_, open_head_;
  Buffer<float> open_weights_, open_pairs_;
  Buffer<int32_t> mark_count_, mark_head_;  // empty: no slot goes
  Buffer<kernels::cuda::Mark> marks_;
  Buffer<policy::SlotStats> stats_;  // empty: none is evicted
  Buffer<float> observers_;          // empty: nobody looks at a prompt's end
  Buffer<int32_t> observed_;
  Buffer<int32_t> counters_;  // pages left, slots refused, pages waiting
  Buffer<int32_t> some_rows_;
  Buffer<int32_t> free_, references_, returned_;
  Buffer<std::byte> memory_;
};

}  // namespace dmc::runtime
