#include "cache/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "cache/eviction.h"
#include "cache/page_demand.h"
#include "cache/prefill_chunk.h"
#include "kernels/attention.h"

namespace dmc::cache {
namespace {

struct Sequence {
  int64_t length = 0;
  std::vector<Stream> streams;  // [layer][head]
  // Only with a policy that looks at a prompt's end: by layer, the queries of its last tokens so
  // far, at most Policy::observes, [tokens][query_heads][d].
  std::vector<std::vector<float>> observers;
};

kernels::PageFormat page_format(const CacheConfig& config) {
  return {config.page_slots, config.head_dim, config.slot_type, config.mass_term};
}

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

  explicit Impl(const CacheConfig& c) : config(c), pool(page_format(c), c.max_pages) {}

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
  int64_t pages_for(const Stream& stream, int64_t tokens, int64_t budget) const;
  bool drops() const { return config.policy != nullptr && config.policy->drops(); }
  bool evicts() const { return config.policy != nullptr && config.policy->evicts(); }
  bool late() const { return config.policy != nullptr && config.policy->late; }
  int64_t observes() const { return config.policy != nullptr ? config.policy->observes : 0; }
  void step(std::span<const SequenceId> ids, int layer, const LayerTokens& tokens, int64_t ahead);
  void before_token(Stream& stream, bool decision, int64_t position);
  void remember_queries(Sequence& sequence, int layer, const LayerTokens& tokens) const;
};

// The open slot becomes final when the next token does not merge into it. (A stream's first token
// finds none to merge into, so it opens one whatever its decision.)
void KvCache::Impl::before_token(Stream& stream, bool decision, int64_t position) {
  if (late()) {
    close_late(pool, stream, decision);
    expire(pool, stream, position, config.delay);
  } else if (!decision && !stream.open.empty()) {
    stream.closed.append(pool, stream.open.key(), stream.open.value(), stream.open.mass());
    stream.open.clear();
    if (drops()) stream.stats.push_back(stream.open_stats);
  }
  stream.open_stats = {position};
}

void KvCache::Impl::remember_queries(Sequence& sequence, int layer,
                                     const LayerTokens& tokens) const {
  const auto row = static_cast<size_t>(config.query_heads * config.head_dim);
  sequence.observers.resize(static_cast<size_t>(config.layers));
  std::vector<float>& queries = sequence.observers[static_cast<size_t>(layer)];
  const auto most = static_cast<size_t>(observes()) * row;
  queries.insert(queries.end(), tokens.q, tokens.q + static_cast<size_t>(tokens.tokens) * row);
  if (queries.size() > most)
    queries.erase(queries.begin(), queries.end() - static_cast<ptrdiff_t>(most));
}

KvCache::KvCache(const CacheConfig& config) : config_(config) {
  DMC_CHECK(config.layers > 0 && config.kv_heads > 0 && config.head_dim > 0);
  DMC_CHECK(config.query_heads % config.kv_heads == 0 && config.window >= 0);
  const bool has_budget = config.policy != nullptr && config.policy->least_budget > 0;
  DMC_CHECK(!has_budget || config.budget >= config.policy->least_budget ||
            (config.budget == 0 && config.cr >= 1.0));
  impl_ = std::make_unique<Impl>(config_);
}

KvCache::~KvCache() = default;

SequenceId KvCache::add_sequence() {
  const size_t streams = static_cast<size_t>(config_.layers * config_.kv_heads);
  const Stream empty{{}, OpenSlot(config_.head_dim, config_.window)};
  impl_->sequences.emplace(impl_->next_id, Sequence{0, std::vector<Stream>(streams, empty), {}});
  return impl_->next_id++;
}

SequenceId KvCache::fork(SequenceId parent) {
  Sequence copy = impl_->at(parent);
  for (const Stream& stream : copy.streams) stream.closed.share(impl_->pool);
  impl_->sequences.emplace(impl_->next_id, std::move(copy));
  return impl_->next_id++;
}

void KvCache::release(SequenceId id) {
  for (Stream& stream : impl_->at(id).streams) stream.closed.clear(impl_->pool);
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
  const int64_t position = sequence.length;
  std::vector<PooledChunk> chunks(static_cast<size_t>(heads));
  std::deque<PassingSlots> passing;  // by head, with a late policy
  const auto for_each_head = [&](auto&& fn) {
    for (int head = 0; head < heads; ++head) {
      fn(head, impl_->stream(sequence, layer, head), chunks[static_cast<size_t>(head)]);
    }
  };
  // Only one thread at a time may take pages, so streams are pooled side by side between the steps
  // that write closed slots.
  for_each_head([&](int head, Stream& s, PooledChunk&) {
    impl_->before_token(s, tokens.merge[head] != 0, position);
  });
  parallel_for(0, heads, 1, [&](int64_t first, int64_t) {
    const int head = static_cast<int>(first);
    pool_chunk(config_, impl_->stream(sequence, layer, head).open, position, head, tokens,
               chunks[static_cast<size_t>(head)]);
  });
  std::vector<kernels::PrefillItem> items;
  for_each_head([&](int head, Stream& s, PooledChunk& chunk) {
    if (impl_->late()) {
      pass_marked(config_, impl_->pool, s, position, head, tokens, chunk,
                  passing.emplace_back(impl_->pool));
    } else {
      close_segments(config_, impl_->pool, s, position, head, tokens, chunk);
    }
    const int64_t offset = static_cast<int64_t>(head) * group * d;
    items.push_back({s.closed.pages().data(), tokens.tokens, chunk.visible.data(),
                     chunk.keys.data(), chunk.values.data(), tokens.q + offset, tokens.out + offset,
                     static_cast<int64_t>(config_.query_heads) * d});
    if (config_.mass_term) items.back().own_mass = chunk.masses.data();
    if (!impl_->late()) return;
    const PassingSlots& p = passing.back();
    items.back().passing = {p.slots.pages().data(), p.from.data(), p.to.data()};
  });
  kernels::prefill_attention(impl_->pool.view(), items, group, impl_->scale());
  for (size_t head = 0; head < passing.size(); ++head) {
    return_marked(impl_->pool, impl_->stream(sequence, layer, static_cast<int>(head)),
                  passing[head]);
  }
  if (impl_->observes() > 0) impl_->remember_queries(sequence, layer, tokens);
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
      before_token(stream, tokens.merge[work.size()] != 0, sequence.length + ahead);
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
    items.push_back({stream.closed.pages().data(), stream.closed.size(), stream.open.key(),
                     stream.open.value(), tokens.q + offset, tokens.out + offset});
    if (config.mass_term) items.back().open_mass = stream.open.mass();
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
    observe(*streams.back(), group(), weights[i].data());
  }
  for (size_t i = 0; config.policy->layer_wide && i < streams.size(); i += heads) {
    share_attention(std::span(streams).subspan(i, static_cast<size_t>(heads)));
  }
  for (Stream* stream : streams) cache::evict(config, pool, *stream);
}

void KvCache::advance(SequenceId id, int64_t tokens) { impl_->at(id).length += tokens; }

void KvCache::end_prompt(SequenceId id) {
  if (impl_->observes() == 0) return;
  Sequence& sequence = impl_->at(id);
  const int d = config_.head_dim, group = impl_->group();
  const int64_t row = static_cast<int64_t>(config_.query_heads) * d;
  const int64_t budget = config_.budget_at(sequence.length);
  for (int layer = 0; layer < static_cast<int>(sequence.observers.size()); ++layer) {
    const std::vector<float>& queries = sequence.observers[static_cast<size_t>(layer)];
    for (int head = 0; head < config_.kv_heads; ++head) {
      keep_of_prompt(config_, impl_->pool, impl_->stream(sequence, layer, head), budget,
                     {queries.data() + static_cast<int64_t>(head) * group * d,
                      static_cast<int64_t>(queries.size()) / row, row, group, impl_->scale()});
    }
  }
  sequence.observers.clear();
}

bool KvCache::in_prompt(SequenceId id) const {
  const Sequence& sequence = impl_->at(id);
  return impl_->observes() > 0 && (sequence.length == 0 || !sequence.observers.empty());
}

int64_t KvCache::total_pages() const {
  return config_.max_pages > 0 ? config_.max_pages : std::numeric_limits<int64_t>::max();
}

int64_t KvCache::free_pages() const {
  if (config_.max_pages == 0) return total_pages();
  return config_.max_pages - impl_->pool.pages_in_use();
}

// To grow, and for copies of shared pages: of the one it appends to, and of all if it drops slots,
// whose places are filled.
int64_t KvCache::Impl::pages_for(const Stream& stream, int64_t tokens, int64_t budget) const {
  const std::vector<int32_t>& pages = stream.closed.pages();
  int64_t count = pages_to_grow(stream.closed.size(), tokens, config.page_slots, budget);
  if (pool.pages_shared() == 0 || pages.empty()) return count;
  const auto shared = [&](int32_t page) { return pool.references(page) > 1; };
  if (drops()) return count + std::ranges::count_if(pages, shared);
  return count + (stream.closed.size() % config.page_slots != 0 && shared(pages.back()) ? 1 : 0);
}

int64_t KvCache::pages_for(SequenceId id, int64_t tokens) const {
  Sequence& sequence = impl_->at(id);
  const int64_t budget = impl_->evicts() ? config_.budget_at(sequence.length + tokens)
                                         : std::numeric_limits<int64_t>::max();
  int64_t pages = 0, passing = 0;
  for (int layer = 0; layer < config_.layers; ++layer) {
    int64_t of_layer = 0;
    for (int head = 0; head < config_.kv_heads; ++head) {
      const Stream& stream = impl_->stream(sequence, layer, head);
      pages += impl_->pages_for(stream, tokens, budget);
      of_layer += pages_of(std::ssize(stream.marks) + tokens, config_.page_slots);
    }
    passing = std::max(passing, of_layer);
  }
  // Tokens that pass by a chunk lie in pages of their own while its layer attends.
  return pages + (impl_->late() && tokens > 1 ? passing : 0);
}

int64_t KvCache::length(SequenceId id) const { return impl_->at(id).length; }

int64_t KvCache::slots(SequenceId id, int layer, int head) const {
  return impl_->stream(impl_->at(id), layer, head).slots();
}

int64_t KvCache::slots(SequenceId id) const {
  int64_t sum = 0;
  for (const Stream& stream : impl_->at(id).streams) sum += stream.slots();
  return sum;
}

int64_t KvCache::marked(SequenceId id) const {
  int64_t sum = 0;
  for (const Stream& stream : impl_->at(id).streams) {
    sum += static_cast<int64_t>(stream.marks.size());
  }
  return sum;
}

CacheBytes stream_bytes(const CacheConfig& config, int64_t slots) {
  DMC_CHECK(slots > 0);
  const int64_t pages = (slots - 1 + config.page_slots - 1) / config.page_slots;
  return {pages * page_format(config).bytes(), OpenSlot::bytes(config.head_dim, config.window),
          pages * static_cast<int64_t>(sizeof(int32_t))};
}

CacheBytes KvCache::bytes() const {
  CacheBytes bytes;
  bytes.pages = impl_->pool.pages_in_use() * impl_->pool.page_bytes();
  for (const auto& [id, sequence] : impl_->sequences) {
    for (const Stream& stream : sequence.streams) {
      bytes.open_slots += OpenSlot::bytes(config_.head_dim, config_.window);
      bytes.tables += static_cast<int64_t>(stream.closed.pages().size() * sizeof(int32_t));
    }
  }
  return bytes;
}

void KvCache::read_slot(SequenceId id, int layer, int head, int64_t index, std::span<float> key,
                        std::span<float> value) const {
  const Stream& stream = impl_->stream(impl_->at(id), layer, head);
  DMC_CHECK(index >= 0 && index < slots(id, layer, head));
  if (index < stream.closed.size()) {
    stream.closed.read(impl_->pool, index, key.data(), value.data());
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
      const int64_t pages = static_cast<int64_t>(stream.closed.pages().size());
      DMC_CHECK(pages == (stream.closed.size() + config_.page_slots - 1) / config_.page_slots);
      DMC_CHECK(stream.closed.size() <= sequence.length);
      DMC_CHECK(!impl_->drops() ||
                stream.stats.size() == static_cast<size_t>(stream.closed.size()));
      for (const Mark& mark : stream.marks) {
        DMC_CHECK(stream.stats[static_cast<size_t>(mark.slot)].position == mark.position);
      }
      DMC_CHECK((sequence.length == 0) == stream.open.empty());
      for (int32_t page : stream.closed.pages()) ++references[static_cast<size_t>(page)];
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
