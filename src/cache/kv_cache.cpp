#include "cache/kv_cache.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/parallel.h"
#include "cache/eviction.h"
#include "cache/page_demand.h"
#include "cache/prefill_chunk.h"
#include "cache/raw_window.h"
#include "cache/saved_stream.h"
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

OpenSlotShape open_shape(const CacheConfig& config) {
  return {config.head_dim, config.window, config.newest_weighs_one};
}

int64_t state_bytes(const CacheConfig& config, int64_t raw_tokens) {
  return open_shape(config).bytes() + raw_tokens * static_cast<int64_t>(sizeof(RawToken));
}

kernels::PageFormat page_format(const CacheConfig& config) {
  return {config.page_slots, config.head_dim, config.slot_type, config.mass_term};
}

// Says how the bytes of a sequence are to be read.
uint64_t shape_of(const CacheConfig& config) {
  ByteWriter shape;
  for (int number : {config.layers, config.kv_heads, config.head_dim, config.window,
                     config.page_slots, static_cast<int>(config.slot_type)}) {
    shape.put(number);
  }
  shape.put(config.delay);
  for (bool is : {config.newest_weighs_one, config.mass_term, config.tells_slots_apart()}) {
    shape.put(is);
  }
  return hash_bytes(shape.bytes());
}

// Token `t` alone.
LayerTokens row_of(const LayerTokens& all, int64_t t, const CacheConfig& config) {
  const int64_t d = config.head_dim, K = config.kv_heads, H = config.query_heads;
  return {1,
          all.q + t * H * d,
          all.k + t * K * d,
          all.v + t * K * d,
          all.decisions + t * K,
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
  size_t first_page_to_write(const Stream& stream) const;
  bool evicts() const { return config.policy != nullptr && config.policy->evicts(); }
  int64_t observes() const { return config.policy != nullptr ? config.policy->observes : 0; }
  void step(std::span<const SequenceId> ids, int layer, const LayerTokens& tokens, int64_t ahead);
  void remember_queries(Sequence& sequence, int layer, const LayerTokens& tokens) const;
};

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
  DMC_CHECK(config.delay >= 0);
  const bool has_budget = config.policy != nullptr && config.policy->least_budget > 0;
  DMC_CHECK(!has_budget || config.budget >= config.policy->least_budget ||
            (config.budget == 0 && config.cr >= 1.0));
  impl_ = std::make_unique<Impl>(config_);
}

KvCache::~KvCache() = default;

SequenceId KvCache::add_sequence() {
  const size_t streams = static_cast<size_t>(config_.layers * config_.kv_heads);
  const Stream empty{{}, OpenSlot(open_shape(config_))};
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

std::string KvCache::save(SequenceId id) const {
  DMC_CHECK(!impl_->evicts() && impl_->observes() == 0);
  const Sequence& sequence = impl_->at(id);
  ByteWriter to;
  to.put(shape_of(config_));
  to.put(sequence.length);
  for (const Stream& stream : sequence.streams) save_stream(config_, impl_->pool, stream, &to);
  return to.take();
}

SequenceId KvCache::restore(std::string_view bytes) {
  ByteReader from(bytes, "the saved sequence");
  from.check(from.take<uint64_t>() == shape_of(config_), "is of a cache that is set up otherwise");
  const auto length = from.take<int64_t>();
  const int64_t most =
      config_.rope != nullptr ? config_.rope->positions : std::numeric_limits<int32_t>::max();
  from.check(length >= 0 && length <= most, "has more tokens than the cache has positions");
  const SequenceId id = add_sequence();
  Sequence& sequence = impl_->at(id);
  try {
    sequence.length = length;
    for (Stream& stream : sequence.streams) {
      restore_stream(config_, impl_->pool, length, &from, &stream);
    }
    from.require_end();
  } catch (...) {
    release(id);
    throw;
  }
  return id;
}

void KvCache::prefill(SequenceId id, int layer, const LayerTokens& tokens) {
  if (tokens.tokens == 0) return;
  Sequence& sequence = impl_->at(id);
  impl_->check_room(sequence, tokens.tokens);
  // (A token alone needs no pages for what passes by.)
  if (impl_->evicts() || (config_.delay > 0 && tokens.tokens == 1)) {
    for (int64_t t = 0; t < tokens.tokens; ++t) {
      impl_->step(std::span(&id, 1), layer, row_of(tokens, t, config_), t);
    }
    return;
  }
  std::deque<PrefillChunk> chunks;  // by head
  for (int head = 0; head < config_.kv_heads; ++head) {
    chunks.emplace_back(config_, impl_->pool, impl_->stream(sequence, layer, head), sequence.length,
                        head, tokens);
  }
  for (PrefillChunk& chunk : chunks) chunk.begin();
  parallel_for(0, config_.kv_heads, 1,
               [&](int64_t head, int64_t) { chunks[static_cast<size_t>(head)].pool(); });
  for (PrefillChunk& chunk : chunks) chunk.close();
  std::vector<kernels::PrefillItem> items;
  for (const PrefillChunk& chunk : chunks) items.push_back(chunk.item(impl_->group()));
  kernels::prefill_attention(impl_->pool.view(), items, impl_->group(), impl_->scale());
  for (PrefillChunk& chunk : chunks) chunk.end();
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
    std::optional<JoiningToken> joining;
  };
  std::vector<Work> work;  // [sequence][head], the order of the tokens' rows
  // With a delay: what comes into each stream's window, and what leaves it.
  const size_t raw_floats = config.delay > 0 ? ids.size() * static_cast<size_t>(heads * d) : 0;
  std::vector<float> raw_keys(raw_floats), left_keys(raw_floats), left_values(raw_floats);
  for (SequenceId id : ids) {
    Sequence& sequence = at(id);
    check_room(sequence, ahead + 1);
    for (int head = 0; head < heads; ++head) {
      const auto i = static_cast<int64_t>(work.size());
      Stream& stream = this->stream(sequence, layer, head);
      std::optional<JoiningToken> joining =
          JoiningToken{tokens.decisions[i], tokens.importance[i], sequence.length + ahead,
                       tokens.k + i * d, tokens.v + i * d};
      if (config.delay > 0) {
        float* const raw_key = raw_keys.data() + i * d;
        rotate_key(config, joining->key, joining->position, raw_key);
        joining = enter_window(config, pool, stream, *joining, raw_key,
                               {left_keys.data() + i * d, left_values.data() + i * d});
      }
      if (joining) {
        before_joining(config, pool, stream, joining->decision);
        stream.open_stats = {joining->position};
      }
      work.push_back({&stream, joining});
    }
  }
  constexpr int64_t kStreamsAtOnce = 32;
  parallel_for(0, static_cast<int64_t>(work.size()), kStreamsAtOnce,
               [&](int64_t first, int64_t last) {
                 for (int64_t i = first; i < last; ++i) {
                   const Work& w = work[static_cast<size_t>(i)];
                   if (w.joining) join(config, w.stream->open, *w.joining);
                 }
               });
  std::vector<kernels::DecodeItem> items;
  for (size_t i = 0; i < work.size(); ++i) {
    const Stream& stream = *work[i].stream;
    const int64_t row = static_cast<int64_t>(i) * d, offset = row * group();
    items.push_back({stream.closed.pages().data(), stream.closed.size(), stream.open.key(),
                     stream.open.value(), tokens.q + offset, tokens.out + offset});
    if (config.mass_term) items.back().open_mass = stream.open.mass();
    if (!stream.open.empty()) continue;
    // All tokens are raw; the newest counts as it is, not as the last closed slot has it.
    --items.back().closed_slots;
    items.back().open_key = raw_keys.data() + row;
    items.back().open_value = tokens.v + row;
    items.back().open_mass = 0.0f;
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

// All pages before it stay as they are, whatever tokens come: slots are added behind the last one,
// raw tokens are written where others were, and where slots are dropped, others take their places.
size_t KvCache::Impl::first_page_to_write(const Stream& stream) const {
  const bool drops = config.policy != nullptr && config.policy->drops() && config.delay == 0;
  const int64_t slot = drops ? 0 : config.delay > 0 ? stream.raw.first : stream.closed.size();
  return static_cast<size_t>(slot / config.page_slots);
}

// To grow, and for copies of shared pages.
int64_t KvCache::Impl::pages_for(const Stream& stream, int64_t tokens, int64_t budget) const {
  const std::vector<int32_t>& pages = stream.closed.pages();
  const int64_t count = pages_to_grow(stream.closed.size(), tokens, config.page_slots, budget);
  const size_t first = first_page_to_write(stream);
  if (pool.pages_shared() == 0 || first >= pages.size()) return count;
  const auto shared = [&](int32_t page) { return pool.references(page) > 1; };
  return count + std::ranges::count_if(std::span(pages).subspan(first), shared);
}

int64_t KvCache::pages_for(SequenceId id, int64_t tokens, int64_t at_once) const {
  Sequence& sequence = impl_->at(id);
  const int64_t budget = impl_->evicts() ? config_.budget_at(sequence.length + tokens)
                                         : std::numeric_limits<int64_t>::max();
  int64_t pages = 0, passing = 0;
  for (int layer = 0; layer < config_.layers; ++layer) {
    int64_t of_layer = 0;
    for (int head = 0; head < config_.kv_heads; ++head) {
      const Stream& stream = impl_->stream(sequence, layer, head);
      pages += impl_->pages_for(stream, tokens, budget);
      const int64_t raw = std::ssize(stream.raw.tokens);
      const int64_t most = std::min(raw + tokens, std::max(raw, config_.delay) + at_once);
      of_layer += cache::pages_of(most, config_.page_slots);
    }
    passing = std::max(passing, of_layer);
  }
  // Tokens that pass by a chunk lie in pages of their own while its layer attends.
  return pages + (config_.delay > 0 && std::min(tokens, at_once) > 1 ? passing : 0);
}

int64_t KvCache::pages_of(SequenceId id) const {
  int64_t pages = 0;
  for (const Stream& stream : impl_->at(id).streams) pages += std::ssize(stream.closed.pages());
  return pages;
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
    sum += hiding_tokens(stream);
  }
  return sum;
}

CacheBytes stream_bytes(const CacheConfig& config, int64_t slots) {
  DMC_CHECK(slots > 0);
  const int64_t raw = std::min(slots, config.delay), in_pages = slots > raw ? slots - 1 : slots;
  const int64_t pages = (in_pages + config.page_slots - 1) / config.page_slots;
  return {pages * page_format(config).bytes(), state_bytes(config, raw),
          pages * static_cast<int64_t>(sizeof(int32_t))};
}

CacheBytes KvCache::bytes() const {
  CacheBytes bytes;
  bytes.pages = impl_->pool.pages_in_use() * impl_->pool.page_bytes();
  for (const auto& [id, sequence] : impl_->sequences) {
    for (const Stream& stream : sequence.streams) {
      bytes.open_slots += state_bytes(config_, std::ssize(stream.raw.tokens));
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
  if (!stream.open.empty()) positions.push_back(stream.open_stats.position);
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
      DMC_CHECK(!config_.tells_slots_apart() ||
                stream.stats.size() == static_cast<size_t>(stream.closed.size()));
      check_raw_window(config_, stream, sequence.length);
      DMC_CHECK((sequence.length <= config_.delay) == stream.open.empty());
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
