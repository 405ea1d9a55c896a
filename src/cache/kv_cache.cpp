#include "cache/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "cache/open_slot.h"
#include "cache/page_pool.h"
#include "kernels/attention.h"

namespace dmc::cache {
namespace {

// One (sequence, layer, KV head).
struct Stream {
  std::vector<int32_t> pages;
  int64_t closed = 0;
  OpenSlot open;
  // Only with a policy that evicts: of the closed slots and of the open one.
  std::vector<policy::SlotStats> stats;
  policy::SlotStats open_stats;
};

struct Sequence {
  int64_t length = 0;
  std::vector<Stream> streams;  // [layer][head]
};

// What prefill computes for one stream before it attends.
struct PooledChunk {
  std::vector<float> keys, values;  // [T][d]: every token's partial mean, keys rotated
  std::vector<int64_t> visible;     // [T]: closed slots at that token

  float* key(int64_t token, int64_t d) { return keys.data() + token * d; }
  float* value(int64_t token, int64_t d) { return values.data() + token * d; }
};

// Token `t` alone.
LayerTokens row_of(const LayerTokens& all, int64_t t, const CacheConfig& config) {
  const int64_t d = config.head_dim, K = config.kv_heads, H = config.query_heads;
  return {1,
          all.q + t * H * d,
          all.k + t * K * d,
          all.v + t * K * d,
          all.merge + t * K,
          all.importance + t * K,
          all.out + t * H * d};
}

}  // namespace

struct KvCache::Impl {
  const CacheConfig& config;
  PagePool pool;
  std::map<SequenceId, Sequence> sequences;
  SequenceId next_id = 1;

  explicit Impl(const CacheConfig& c)
      : config(c), pool({c.page_slots, c.head_dim, c.slot_type}, c.max_pages) {}

  int group() const { return config.query_heads / config.kv_heads; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(config.head_dim)); }

  Sequence& at(SequenceId id) {
    const auto found = sequences.find(id);
    DMC_CHECK(found != sequences.end());
    return found->second;
  }
  Stream& stream(Sequence& sequence, int layer, int head) const {
    return sequence.streams[static_cast<size_t>(layer * config.kv_heads + head)];
  }
  void check_room(const Sequence& sequence, int64_t tokens) const {
    DMC_CHECK(config.rope == nullptr || sequence.length + tokens <= config.rope->positions);
  }
  bool evicts() const { return config.policy != nullptr && config.policy->evict != nullptr; }
  void step(std::span<const SequenceId> ids, int layer, const LayerTokens& tokens, int64_t ahead);
  void observe(Stream& stream, const float* weights) const;
  void share_attention(std::span<Stream* const> layer) const;
  void evict(Stream& stream);
  void append_closed(Stream& stream, const float* key, const float* value);
  void close_unless(bool merges, Stream& stream);
  void pool_chunk(OpenSlot& open, int64_t position, int head, const LayerTokens& tokens,
                  PooledChunk& chunk) const;
  void close_segments(Stream& stream, int head, const LayerTokens& tokens, PooledChunk& chunk);
};

// Writes a closed slot behind the others, into a page of the stream's own.
void KvCache::Impl::append_closed(Stream& stream, const float* key, const float* value) {
  const int64_t row = stream.closed % config.page_slots;
  if (row == 0) {
    stream.pages.push_back(pool.take(stream.pages.empty() ? -1 : stream.pages.back()));
  } else {
    stream.pages.back() = pool.writable(stream.pages.back());
  }
  kernels::write_slot(pool.view(), stream.pages.back(), row, key, value);
  ++stream.closed;
}

// The open slot becomes final when the next token does not merge into it. (A stream's first token
// finds none to merge into, so it opens one whatever its decision.)
void KvCache::Impl::close_unless(bool merges, Stream& stream) {
  if (merges || stream.open.empty()) return;
  append_closed(stream, stream.open.key(), stream.open.value());
  stream.open.clear();
  if (evicts()) stream.stats.push_back(stream.open_stats);
}

// Takes the newest query's attention into the slots' statistics. weights: [group][closed + 1].
void KvCache::Impl::observe(Stream& stream, const float* weights) const {
  const int64_t width = stream.closed + 1;
  for (int64_t slot = 0; slot < width; ++slot) {
    policy::SlotStats& stats =
        slot < stream.closed ? stream.stats[static_cast<size_t>(slot)] : stream.open_stats;
    stats.attention = 0.0f;
    for (int g = 0; g < group(); ++g) {
      stats.attention += weights[g * width + slot] / static_cast<float>(group());
    }
    stats.total += stats.attention;
  }
}

// Gives the streams of one layer the mean of their attention. They hold the same tokens in the same
// order, because they have evicted as one from the start.
void KvCache::Impl::share_attention(std::span<Stream* const> layer) const {
  for (size_t slot = 0; slot < layer[0]->stats.size(); ++slot) {
    float mean = 0.0f;
    for (const Stream* stream : layer) {
      mean += stream->stats[slot].attention / static_cast<float>(layer.size());
    }
    for (Stream* stream : layer) stream->stats[slot].attention = mean;
  }
}

// Brings a stream back to its budget: the last closed slot takes the place of the one that goes.
void KvCache::Impl::evict(Stream& stream) {
  while (stream.closed + 1 > config.budget) {
    const size_t victim =
        config.policy->evict(stream.stats, stream.open_stats.position, config.budget);
    DMC_CHECK(victim < stream.stats.size());
    const auto at = static_cast<int64_t>(victim), last = stream.closed - 1;
    if (at != last) {
      int32_t& page = stream.pages[static_cast<size_t>(at / config.page_slots)];
      page = pool.writable(page);
      kernels::copy_slot(pool.view(), stream.pages.back(), last % config.page_slots, page,
                         at % config.page_slots);
      stream.stats[victim] = stream.stats.back();
    }
    stream.stats.pop_back();
    --stream.closed;
    if (stream.closed % config.page_slots == 0) {
      pool.drop_reference(stream.pages.back());
      stream.pages.pop_back();
    }
  }
}

// Takes one head's tokens into its open slot and keeps every partial mean. A segment that ends
// inside the chunk needs nothing more: its slot is the mean at its last token.
void KvCache::Impl::pool_chunk(OpenSlot& open, int64_t position, int head,
                               const LayerTokens& tokens, PooledChunk& chunk) const {
  const int64_t d = config.head_dim, heads = config.kv_heads;
  chunk.keys.resize(static_cast<size_t>(tokens.tokens * d));
  chunk.values.resize(chunk.keys.size());
  for (int64_t t = 0; t < tokens.tokens; ++t) {
    const int64_t row = t * heads + head;
    if (tokens.merge[row] == 0) open.clear();
    open.push(tokens.importance[row], tokens.k + row * d, tokens.v + row * d);
    open.pool(position + t, config.rope);
    std::copy_n(open.key(), d, chunk.key(t, d));
    std::copy_n(open.value(), d, chunk.value(t, d));
  }
}

// Writes the slots of the segments that end inside the chunk; the last one stays open.
void KvCache::Impl::close_segments(Stream& stream, int head, const LayerTokens& tokens,
                                   PooledChunk& chunk) {
  const int64_t d = config.head_dim;
  for (int64_t t = 0; t < tokens.tokens; ++t) {
    if (t > 0 && tokens.merge[t * config.kv_heads + head] == 0) {
      append_closed(stream, chunk.key(t - 1, d), chunk.value(t - 1, d));
    }
    chunk.visible.push_back(stream.closed);
  }
}

KvCache::KvCache(const CacheConfig& config) : config_(config) {
  DMC_CHECK(config.layers > 0 && config.kv_heads > 0 && config.head_dim > 0);
  DMC_CHECK(config.query_heads % config.kv_heads == 0 && config.window >= 0);
  DMC_CHECK(config.policy == nullptr || config.policy->evict == nullptr || config.budget >= 2);
  impl_ = std::make_unique<Impl>(config_);
}

KvCache::~KvCache() = default;

SequenceId KvCache::add_sequence() {
  const size_t streams = static_cast<size_t>(config_.layers * config_.kv_heads);
  const Stream empty{{}, 0, OpenSlot(config_.head_dim, config_.window), {}, {}};
  impl_->sequences.emplace(impl_->next_id, Sequence{0, std::vector<Stream>(streams, empty)});
  return impl_->next_id++;
}

SequenceId KvCache::fork(SequenceId parent) {
  Sequence copy = impl_->at(parent);
  for (const Stream& stream : copy.streams) {
    for (int32_t page : stream.pages) impl_->pool.add_reference(page);
  }
  impl_->sequences.emplace(impl_->next_id, std::move(copy));
  return impl_->next_id++;
}

void KvCache::release(SequenceId id) {
  for (const Stream& stream : impl_->at(id).streams) {
    for (int32_t page : stream.pages) impl_->pool.drop_reference(page);
  }
  impl_->sequences.erase(id);
}

void KvCache::prefill(SequenceId id, int layer, const LayerTokens& tokens) {
  if (tokens.tokens == 0) return;
  Sequence& sequence = impl_->at(id);
  impl_->check_room(sequence, tokens.tokens);
  if (impl_->evicts()) {
    for (int64_t t = 0; t < tokens.tokens; ++t) {
      impl_->step(std::span(&id, 1), layer, row_of(tokens, t, config_), t);
    }
    return;
  }
  const int heads = config_.kv_heads, d = config_.head_dim, group = impl_->group();
  std::vector<PooledChunk> chunks(static_cast<size_t>(heads));
  const auto for_each_head = [&](auto&& fn) {
    for (int head = 0; head < heads; ++head) fn(head, impl_->stream(sequence, layer, head));
  };
  // Only one thread at a time may take pages, so streams are pooled side by side between the steps
  // that write closed slots.
  for_each_head([&](int head, Stream& s) { impl_->close_unless(tokens.merge[head] != 0, s); });
  parallel_for(0, heads, 1, [&](int64_t first, int64_t) {
    const int head = static_cast<int>(first);
    impl_->pool_chunk(impl_->stream(sequence, layer, head).open, sequence.length, head, tokens,
                      chunks[static_cast<size_t>(head)]);
  });
  for_each_head([&](int head, Stream& s) {
    impl_->close_segments(s, head, tokens, chunks[static_cast<size_t>(head)]);
  });
  std::vector<kernels::PrefillItem> items;
  for_each_head([&](int head, Stream& s) {
    const PooledChunk& chunk = chunks[static_cast<size_t>(head)];
    const int64_t offset = static_cast<int64_t>(head) * group * d;
    items.push_back({s.pages.data(), tokens.tokens, chunk.visible.data(), chunk.keys.data(),
                     chunk.values.data(), tokens.q + offset, tokens.out + offset,
                     static_cast<int64_t>(config_.query_heads) * d});
  });
  kernels::prefill_attention(impl_->pool.view(), items, group, impl_->scale());
}

void KvCache::decode(std::span<const SequenceId> ids, int layer, const LayerTokens& tokens) {
  DMC_CHECK(tokens.tokens == static_cast<int64_t>(ids.size()));
  impl_->step(ids, layer, tokens, 0);
}

// decode() for tokens that stand `ahead` behind what the sequences hold.
void KvCache::Impl::step(std::span<const SequenceId> ids, int layer, const LayerTokens& tokens,
                         int64_t ahead) {
  const int heads = config.kv_heads, d = config.head_dim;
  struct Work {
    Stream* stream;
    int64_t position;
  };
  std::vector<Work> work;  // [sequence][head], the order of the tokens' rows
  for (SequenceId id : ids) {
    Sequence& sequence = at(id);
    check_room(sequence, ahead + 1);
    for (int head = 0; head < heads; ++head) {
      Stream& stream = this->stream(sequence, layer, head);
      close_unless(tokens.merge[work.size()] != 0, stream);
      work.push_back({&stream, sequence.length + ahead});
    }
  }
  constexpr int64_t kStreamsAtOnce = 32;
  parallel_for(0, static_cast<int64_t>(work.size()), kStreamsAtOnce,
               [&](int64_t first, int64_t last) {
                 for (int64_t i = first; i < last; ++i) {
                   OpenSlot& open = work[static_cast<size_t>(i)].stream->open;
                   open.push(tokens.importance[i], tokens.k + i * d, tokens.v + i * d);
                   open.pool(work[static_cast<size_t>(i)].position, config.rope);
                 }
               });
  std::vector<kernels::DecodeItem> items;
  for (size_t i = 0; i < work.size(); ++i) {
    const Stream& stream = *work[i].stream;
    const int64_t offset = static_cast<int64_t>(i) * group() * d;
    items.push_back({stream.pages.data(), stream.closed, stream.open.key(), stream.open.value(),
                     tokens.q + offset, tokens.out + offset});
  }
  std::vector<std::vector<float>> weights(evicts() ? items.size() : 0);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i].resize(static_cast<size_t>(group() * (items[i].closed_slots + 1)));
    items[i].weights = weights[i].data();
  }
  kernels::decode_attention(pool.view(), items, group(), scale());
  if (!evicts()) return;
  std::vector<Stream*> streams;
  for (size_t i = 0; i < work.size(); ++i) {
    streams.push_back(work[i].stream);
    streams.back()->open_stats = {work[i].position, 0.0f, 0.0};
    observe(*streams.back(), weights[i].data());
  }
  for (size_t i = 0; config.policy->layer_wide && i < streams.size(); i += heads) {
    share_attention(std::span(streams).subspan(i, static_cast<size_t>(heads)));
  }
  for (Stream* stream : streams) evict(*stream);
}

void KvCache::advance(SequenceId id, int64_t tokens) { impl_->at(id).length += tokens; }

int64_t KvCache::length(SequenceId id) const { return impl_->at(id).length; }

int64_t KvCache::slots(SequenceId id, int layer, int head) const {
  const Stream& stream = impl_->stream(impl_->at(id), layer, head);
  return stream.closed + (stream.open.empty() ? 0 : 1);
}

int64_t KvCache::slots(SequenceId id) const {
  int64_t sum = 0;
  for (const Stream& stream : impl_->at(id).streams) {
    sum += stream.closed + (stream.open.empty() ? 0 : 1);
  }
  return sum;
}

CacheBytes stream_bytes(const CacheConfig& config, int64_t slots) {
  DMC_CHECK(slots > 0);
  const kernels::PageFormat format{config.page_slots, config.head_dim, config.slot_type};
  const int64_t pages = (slots - 1 + config.page_slots - 1) / config.page_slots;
  return {pages * format.bytes(), OpenSlot::bytes(config.head_dim, config.window),
          pages * static_cast<int64_t>(sizeof(int32_t))};
}

CacheBytes KvCache::bytes() const {
  CacheBytes bytes;
  bytes.pages = impl_->pool.pages_in_use() * impl_->pool.page_bytes();
  for (const auto& [id, sequence] : impl_->sequences) {
    for (const Stream& stream : sequence.streams) {
      bytes.open_slots += OpenSlot::bytes(config_.head_dim, config_.window);
      bytes.tables += static_cast<int64_t>(stream.pages.size() * sizeof(int32_t));
    }
  }
  return bytes;
}

void KvCache::read_slot(SequenceId id, int layer, int head, int64_t index, std::span<float> key,
                        std::span<float> value) const {
  const Stream& stream = impl_->stream(impl_->at(id), layer, head);
  DMC_CHECK(index >= 0 && index < slots(id, layer, head));
  if (index < stream.closed) {
    kernels::read_slot(impl_->pool.view(),
                       stream.pages[static_cast<size_t>(index / config_.page_slots)],
                       index % config_.page_slots, key.data(), value.data());
    return;
  }
  std::copy_n(stream.open.key(), config_.head_dim, key.data());
  std::copy_n(stream.open.value(), config_.head_dim, value.data());
}

std::vector<int64_t> KvCache::kept_positions(SequenceId id, int layer, int head) const {
  const Stream& stream = impl_->stream(impl_->at(id), layer, head);
  std::vector<int64_t> positions;
  for (const policy::SlotStats& slot : stream.stats) positions.push_back(slot.position);
  positions.push_back(stream.open_stats.position);
  return positions;
}

double KvCache::open_weight(SequenceId id, int layer, int head) const {
  return impl_->stream(impl_->at(id), layer, head).open.weight();
}

void KvCache::check_invariants() const {
  std::vector<int32_t> references(static_cast<size_t>(impl_->pool.pages_total()), 0);
  for (const auto& [id, sequence] : impl_->sequences) {
    for (const Stream& stream : sequence.streams) {
      const int64_t pages = static_cast<int64_t>(stream.pages.size());
      DMC_CHECK(pages == (stream.closed + config_.page_slots - 1) / config_.page_slots);
      DMC_CHECK(stream.closed <= sequence.length);
      DMC_CHECK((sequence.length == 0) == stream.open.empty());
      for (int32_t page : stream.pages) ++references[static_cast<size_t>(page)];
    }
  }
  int64_t in_use = 0;
  for (size_t page = 0; page < references.size(); ++page) {
    DMC_CHECK(impl_->pool.references(static_cast<int32_t>(page)) == references[page]);
    in_use += references[page] > 0 ? 1 : 0;
  }
  DMC_CHECK(in_use == impl_->pool.pages_in_use());
}

}  // namespace dmc::cache
