// A stream as bytes, and back, to the bit. What is read is hostile until it is checked: a stream
// that comes of it keeps every invariant of the cache, whatever the bytes were.
#pragma once

#include "base/bytes.h"
#include "cache/kv_cache.h"
#include "cache/stream.h"

namespace dmc::cache {

// Of caches without eviction.
void save_stream(const CacheConfig& config, const PagePool& pool, const Stream& stream,
                 ByteWriter* to);
// Into `stream`, an empty one of a sequence that has seen `length` tokens. On an error, kData or
// what the pool throws, it holds pages that it has to give back.
void restore_stream(const CacheConfig& config, PagePool& pool, int64_t length, ByteReader* from,
                    Stream* stream);

}  // namespace dmc::cache
