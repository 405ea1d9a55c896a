#include "cache/saved_stream.h"

#include <algorithm>
#include <cmath>

namespace dmc::cache {
namespace {

bool all_finite(std::span<const float> values) {
  return std::ranges::all_of(values, [](float x) { return std::isfinite(x); });
}

bool is_weight(float x) { return std::isfinite(x) && x > 0.0f; }

void save_window(const RawWindow& raw, ByteWriter* to) {
  to->put(raw.first);
  for (const RawToken& token : raw.tokens) {
    to->put(token.decision);
    to->put(token.importance);
  }
}

RawWindow restore_window(const CacheConfig& config, int64_t length, int64_t closed,
                         ByteReader* from) {
  RawWindow raw;
  raw.first = from->take<int64_t>();
  const int64_t count = std::min(length, config.delay);
  from->check(raw.first >= 0 && raw.first <= closed - count, "raw tokens lie outside the slots");
  from->require(static_cast<uint64_t>(count), sizeof(uint8_t) + sizeof(float));
  for (int64_t i = 0; i < count; ++i) {
    const auto decision = from->take<uint8_t>();
    from->check(decision <= static_cast<uint8_t>(policy::Decision::kDropPrevious),
                "a decision is none");
    raw.tokens.push_back({static_cast<policy::Decision>(decision), from->take<float>()});
    from->check(is_weight(raw.tokens.back().importance), "a token's weight is none");
  }
  return raw;
}

// Raw tokens stand where their positions say.
void check_positions(const CacheConfig& config, int64_t length, const Stream& stream,
                     const ByteReader& from) {
  for (const policy::SlotStats& slot : stream.stats) {
    from.check(slot.position >= 0 && slot.position < length, "a slot's position is outside");
  }
  for (int64_t position = length - std::ssize(stream.raw.tokens); position < length; ++position) {
    const auto slot = static_cast<size_t>(stream.raw.first + position % config.delay);
    from.check(stream.stats[slot].position == position, "a raw token is not where it belongs");
  }
}

void check_slots(const PagePool& pool, int head_dim, const SlotList& slots,
                 const ByteReader& from) {
  std::vector<float> key(static_cast<size_t>(head_dim)), value(key.size());
  for (int64_t i = 0; i < slots.size(); ++i) {
    slots.read(pool, i, key.data(), value.data());
    from.check(all_finite(key) && all_finite(value), "a slot has numbers that are none");
  }
}

}  // namespace

void save_stream(const CacheConfig& config, const PagePool& pool, const Stream& stream,
                 ByteWriter* to) {
  to->put(stream.closed.size());
  stream.closed.save(pool, to);
  if (config.tells_slots_apart()) {
    for (const policy::SlotStats& slot : stream.stats) to->put(slot.position);
    to->put(stream.open_stats.position);
  }
  if (config.delay > 0) save_window(stream.raw, to);
  stream.open.save(to);
}

void restore_stream(const CacheConfig& config, PagePool& pool, int64_t length, ByteReader* from,
                    Stream* stream) {
  const auto closed = from->take<int64_t>();
  const bool has_open = length > config.delay;
  from->check(closed >= 0 && closed + (has_open ? 1 : 0) <= length, "has more slots than tokens");
  from->check(has_open || closed == length, "lacks slots of raw tokens");
  stream->closed.restore(pool, closed, from);
  check_slots(pool, config.head_dim, stream->closed, *from);
  if (config.tells_slots_apart()) {
    from->require(static_cast<uint64_t>(closed), sizeof(int64_t));
    for (int64_t i = 0; i < closed; ++i) stream->stats.push_back({from->take<int64_t>()});
    stream->open_stats.position = from->take<int64_t>();
    from->check(stream->open_stats.position >= 0 &&
                    stream->open_stats.position < std::max<int64_t>(length, 1),
                "the open slot's position is outside");
  }
  if (config.delay > 0) stream->raw = restore_window(config, length, closed, from);
  if (config.tells_slots_apart()) check_positions(config, length, *stream, *from);
  stream->open.restore(length, from);
  from->check(stream->open.empty() != has_open, "has an open slot where none can be, or lacks it");
}

}  // namespace dmc::cache
