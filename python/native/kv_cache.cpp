// dmc.KvCache: the cache of embed/dmc.h on arrays.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <numeric>

#include "embed/dmc.h"
#include "module.h"

namespace dmc::python {
namespace {

namespace nb = nanobind;

// [tokens][heads][head_dim], and what there is one of for each token and KV head.
using Vectors = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Decisions = nb::ndarray<const bool, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Read = nb::ndarray<nb::numpy, float, nb::ndim<3>>;
using Counts = nb::ndarray<nb::numpy, int64_t, nb::ndim<2>>;

template <class T, class Array>
Array owned(std::vector<T> values, std::initializer_list<size_t> shape) {
  auto* kept = new std::vector<T>(std::move(values));
  const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return Array(kept->data(), shape, owner);
}

template <class Array>
void require_shape(const Array& array, const char* name, std::initializer_list<int64_t> shape) {
  size_t axis = 0;
  for (const int64_t size : shape) {
    if (static_cast<int64_t>(array.shape(axis++)) == size) continue;
    std::string wanted;
    for (const int64_t n : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(n);
    throw invalid_argument(name, "expected an array of shape (" + wanted + ")");
  }
}

// The addresses of a call's arrays, once their shapes are what the cache was made for.
LayerTokens layer_tokens(const KvCache& cache, const Vectors& k, const Vectors& v,
                         const std::optional<Decisions>& decisions,
                         const std::optional<Numbers>& importance) {
  const KvCacheOptions& o = cache.options();
  const auto count = static_cast<int64_t>(k.shape(0));
  require_shape(k, "k", {count, o.kv_heads, o.head_dim});
  require_shape(v, "v", {count, o.kv_heads, o.head_dim});
  if (decisions) require_shape(*decisions, "decisions", {count, o.kv_heads});
  if (importance) require_shape(*importance, "importance", {count, o.kv_heads});
  static_assert(sizeof(bool) == sizeof(uint8_t));
  LayerTokens tokens;
  tokens.count = count;
  tokens.k = k.data();
  tokens.v = v.data();
  if (decisions) tokens.decisions = reinterpret_cast<const uint8_t*>(decisions->data());
  if (importance) tokens.importance = importance->data();
  return tokens;
}

Read attend(KvCache& cache, int layer, const Vectors& q, const Vectors& k, const Vectors& v,
            const std::optional<Decisions>& decisions, const std::optional<Numbers>& importance) {
  const KvCacheOptions& o = cache.options();
  LayerTokens tokens = layer_tokens(cache, k, v, decisions, importance);
  require_shape(q, "q", {tokens.count, o.query_heads, o.head_dim});
  tokens.q = q.data();
  std::vector<float> out(q.size());
  {
    const nb::gil_scoped_release computing;
    cache.attend(layer, tokens, out.data());
  }
  return owned<float, Read>(std::move(out), {q.shape(0), q.shape(1), q.shape(2)});
}

// The library takes tokens in with what their queries read; queries of zeros read what nobody
// wants.
void append(KvCache& cache, int layer, const Vectors& k, const Vectors& v,
            const std::optional<Decisions>& decisions, const std::optional<Numbers>& importance) {
  const KvCacheOptions& o = cache.options();
  for (const char* asks : {"h2o", "tova", "snapkv"}) {
    if (o.policy != asks) continue;
    throw invalid_argument("policy", o.policy + " chooses by what queries read; use attend()");
  }
  LayerTokens tokens = layer_tokens(cache, k, v, decisions, importance);
  const nb::gil_scoped_release computing;
  const std::vector<float> queries(static_cast<size_t>(tokens.count * o.query_heads * o.head_dim));
  std::vector<float> read(queries.size());
  tokens.q = queries.data();
  cache.attend(layer, tokens, read.data());
}

Counts lengths(const KvCache& cache) {
  return owned<int64_t, Counts>(cache.slots(), {static_cast<size_t>(cache.options().layers),
                                                static_cast<size_t>(cache.options().kv_heads)});
}

double ratio(const KvCache& cache) {
  const std::vector<int64_t> slots = cache.slots();
  const auto kept = static_cast<double>(std::accumulate(slots.begin(), slots.end(), int64_t{0}));
  if (kept == 0.0) return 1.0;
  return static_cast<double>(cache.length()) * static_cast<double>(slots.size()) / kept;
}

constexpr auto kOptions =
    "query_heads: as many as kv_heads unless given. policy: \"dmc\", \"dms\" or \"dmc-delayed\" "
    "(decisions come with the tokens), \"dense\", or \"h2o\", \"tova\", \"window\", \"snapkv\" "
    "with a "
    "budget of slots a head or a ratio cr. window: tokens that a slot averages at most, 0: all. "
    "delay: newest tokens that stay as they are (dms, dmc-delayed). slots: f32, bf16, f16, int8 or "
    "fp8. max_pages: of page_slots slots each, 0: as many as it takes. rope_theta: the cache "
    "rotates "
    "keys (half-split form) with the position of a slot's newest token, up to max_tokens; 0: keys "
    "are stored as they come.";
constexpr auto kAttend =
    "Takes a layer's tokens in and returns what their queries read, float32 [tokens, query_heads, "
    "head_dim]. q is [tokens, query_heads, head_dim], k and v are [tokens, kv_heads, head_dim]; "
    "what "
    "is not float32 in C order is copied. decisions (bool) and importance (above 0) are [tokens, "
    "kv_heads]; True: with dmc the token merges into the newest slot, with dms the one before it "
    "goes. A step brings the same number of tokens to each layer once.";

}  // namespace

void add_kv_cache(nb::module_& module) {
  using namespace nb::literals;
  nb::class_<KvCache>(module, "KvCache",
                      "The compressed cache of one text, for a decoder of your own.")
      .def(
          "__init__",
          [](KvCache* self, int layers, int kv_heads, int head_dim, int query_heads,
             const std::string& policy, int64_t budget, double cr, int window, int delay,
             const std::string& slots, int page_slots, int64_t max_pages, double rope_theta,
             int64_t max_tokens) {
            const int queries = query_heads > 0 ? query_heads : kv_heads;
            const KvCacheOptions options{layers,     kv_heads,  queries,    head_dim,  policy,
                                         budget,     cr,        window,     delay,     slots,
                                         page_slots, max_pages, rope_theta, max_tokens};
            note_use();
            new (self) KvCache(options);
          },
          "layers"_a, "kv_heads"_a, "head_dim"_a, nb::kw_only(), "query_heads"_a = 0,
          "policy"_a = "dmc", "budget"_a = 0, "cr"_a = 0.0, "window"_a = 12, "delay"_a = 0,
          "slots"_a = "f32", "page_slots"_a = 16, "max_pages"_a = 0, "rope_theta"_a = 0.0,
          "max_tokens"_a = 0, kOptions)
      .def("append", &append, "layer"_a, "k"_a, "v"_a, "decisions"_a = nb::none(),
           "importance"_a = nb::none(),
           "Takes a layer's tokens in without reading anything; arrays as attend() has them.")
      .def("attend", &attend, "layer"_a, "q"_a, "k"_a, "v"_a, "decisions"_a = nb::none(),
           "importance"_a = nb::none(), kAttend)
      .def("end_prompt", &KvCache::end_prompt, "The prompt is complete (policy snapkv).")
      .def("fork", &KvCache::fork, "The same text, which goes on by itself; pages are shared.")
      .def("new_text", &KvCache::new_text, "Another one, empty, from the same pool of pages.")
      .def("__len__", &KvCache::length)
      .def_prop_ro("length", &KvCache::length, "Tokens that all layers have.")
      .def_prop_ro("lengths", &lengths, nb::rv_policy::move,
                   "Slots kept of them, int64 [layers, kv_heads].")
      .def_prop_ro("ratio", &ratio, "Tokens for each slot, over all layers and heads.")
      .def_prop_ro("bytes", &KvCache::bytes, "Of all texts that share pages.");
}

}  // namespace dmc::python
