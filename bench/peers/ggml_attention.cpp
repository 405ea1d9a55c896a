#include "ggml_attention.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <string_view>
#include <vector>

#include "arena.h"
#include "base/error.h"

namespace dmc::peers {
namespace {

template <auto kFree>
struct Free {
  template <class T>
  void operator()(T* handle) const {
    kFree(handle);
  }
};
using Context = std::unique_ptr<ggml_context, Free<ggml_free>>;
using Backend = std::unique_ptr<ggml_backend, Free<ggml_backend_free>>;
using Buffer = std::unique_ptr<ggml_backend_buffer, Free<ggml_backend_buffer_free>>;
using Allocator = std::unique_ptr<ggml_gallocr, Free<ggml_gallocr_free>>;

constexpr size_t kTensorsPerLayer = 32;  // more than a layer's graph has

// The tensors of a layer that exist before a step.
struct Layer {
  ggml_tensor *k, *v;  // the cache: [kv_heads * d] by slots; v transposed unless flash
  ggml_tensor* q;      // [d][query_heads][1]
  ggml_tensor* out;    // [query_heads * d]
};

ggml_type type_named(std::string_view name) {
  for (ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0}) {
    if (name == ggml_type_name(type)) return type;
  }
  throw internal_error("no such cache type: " + std::string(name));
}

class GgmlAttention : public Attention {
 public:
  GgmlAttention(const Problem& problem, const GgmlOptions& options)
      : problem_(problem),
        type_(type_named(options.type)),
        flash_(options.flash),
        arena_(cache_bytes(), options.huge_pages),
        context_(ggml_init({ggml_tensor_overhead() * tensor_count() +
                                ggml_graph_overhead_custom(tensor_count(), false),
                            nullptr, /*no_alloc=*/true})),
        backend_(ggml_backend_cpu_init()),
        cache_buffer_(ggml_backend_cpu_buffer_from_ptr(arena_.data(), arena_.size())) {
    ggml_backend_cpu_set_n_threads(backend_.get(), options.threads);
    graph_ = ggml_new_graph_custom(context_.get(), tensor_count(), false);
    mask_ = ggml_new_tensor_2d(context_.get(), flash_ ? GGML_TYPE_F16 : GGML_TYPE_F32,
                               problem_.slots, 1);
    keep(mask_);
    for (int i = 0; i < problem_.layers; ++i) layers_.push_back(make_layer());
    place_small_tensors();
    for (int i = 0; i < problem_.layers; ++i) fill(i);
  }

  void step() override { ggml_backend_graph_compute(backend_.get(), graph_); }

  std::span<const float> output(int layer) const override {
    const ggml_tensor* const out = layers_[static_cast<size_t>(layer)].out;
    return {static_cast<const float*>(out->data), out_floats()};
  }

 private:
  size_t tensor_count() const {
    return kTensorsPerLayer * static_cast<size_t>(problem_.layers + 1);
  }
  size_t out_floats() const {
    return static_cast<size_t>(problem_.query_heads) * static_cast<size_t>(problem_.head_dim);
  }
  int64_t kv_width() const { return int64_t{problem_.kv_heads} * problem_.head_dim; }
  size_t tensor_bytes() const {
    return ggml_row_size(type_, kv_width()) * static_cast<size_t>(problem_.slots);
  }
  size_t cache_bytes() const { return 2 * tensor_bytes() * static_cast<size_t>(problem_.layers); }

  // Memory of an output is never given to another tensor; steps repeat, so inputs need that too.
  static void keep(ggml_tensor* tensor) { ggml_set_output(tensor); }

  ggml_tensor* new_cache_tensor() {
    ggml_tensor* const tensor =
        ggml_new_tensor_2d(context_.get(), type_, kv_width(), problem_.slots);
    ggml_backend_tensor_alloc(cache_buffer_.get(), tensor, arena_.take(tensor_bytes()));
    return tensor;
  }

  Layer make_layer() {
    Layer layer;
    layer.k = new_cache_tensor();
    layer.v = new_cache_tensor();
    layer.q = ggml_new_tensor_3d(context_.get(), GGML_TYPE_F32, problem_.head_dim,
                                 problem_.query_heads, 1);
    keep(layer.q);
    layer.out = flash_ ? flash_graph(layer) : plain_graph(layer);
    keep(layer.out);
    ggml_build_forward_expand(graph_, layer.out);
    return layer;
  }

  // [d][slots][kv_heads], a view of the cache's rows.
  ggml_tensor* by_head(ggml_tensor* cache) {
    const size_t head = ggml_row_size(type_, problem_.head_dim);
    ggml_tensor* const view =
        ggml_view_3d(context_.get(), cache, problem_.head_dim, problem_.kv_heads, problem_.slots,
                     head, ggml_row_size(type_, kv_width()), 0);
    return ggml_permute(context_.get(), view, 0, 2, 1, 3);
  }

  // [slots][d][kv_heads], a view of the transposed cache.
  ggml_tensor* transposed_by_head(ggml_tensor* cache) {
    const size_t channel = ggml_row_size(type_, problem_.slots);
    ggml_tensor* const view =
        ggml_view_3d(context_.get(), cache, problem_.slots, problem_.kv_heads, problem_.head_dim,
                     channel * static_cast<size_t>(problem_.head_dim), channel, 0);
    return ggml_permute(context_.get(), view, 0, 2, 1, 3);
  }

  ggml_tensor* flash_graph(const Layer& layer) {
    ggml_tensor* const q = ggml_permute(context_.get(), layer.q, 0, 2, 1, 3);
    ggml_tensor* const out =
        ggml_flash_attn_ext(context_.get(), q, by_head(layer.k), by_head(layer.v), mask_,
                            problem_.scale(), /*max_bias=*/0.0f, /*logit_softcap=*/0.0f);
    ggml_prec_set_acc(out, GGML_PREC_F32);
    return ggml_reshape_1d(context_.get(), out, static_cast<int64_t>(out_floats()));
  }

  ggml_tensor* plain_graph(const Layer& layer) {
    ggml_context* const c = context_.get();
    ggml_tensor* const q = ggml_permute(c, layer.q, 0, 2, 1, 3);
    ggml_tensor* scores = ggml_mul_mat(c, by_head(layer.k), q);
    ggml_prec_set_acc(scores, GGML_PREC_F32);
    scores = ggml_soft_max_ext(c, scores, mask_, problem_.scale(), /*max_bias=*/0.0f);
    ggml_tensor* const out = ggml_mul_mat(c, transposed_by_head(layer.v), scores);
    return ggml_cont_2d(c, ggml_permute(c, out, 0, 2, 1, 3), static_cast<int64_t>(out_floats()), 1);
  }

  // Memory for the inputs and for what the graph computes; layers share it as in llama.cpp.
  void place_small_tensors() {
    allocator_.reset(ggml_gallocr_new(ggml_backend_cpu_buffer_type()));
    if (!ggml_gallocr_alloc_graph(allocator_.get(), graph_)) {
      throw internal_error("ggml could not place the attention graph in memory");
    }
    ggml_backend_tensor_memset(mask_, 0, 0, ggml_nbytes(mask_));
  }

  void fill(int index) {
    const Layer& layer = layers_[static_cast<size_t>(index)];
    fill_rows(layer.k, Row::kKey, index);
    flash_ ? fill_rows(layer.v, Row::kValue, index) : fill_transposed(layer.v, index);
    auto* const q = static_cast<float*>(layer.q->data);
    for (int head = 0; head < problem_.query_heads; ++head) {
      fill_row(problem_, Row::kQuery, index, head, 0, q + head * problem_.head_dim);
    }
  }

  static std::byte* row_of(ggml_tensor* cache, int64_t slot) {
    return static_cast<std::byte*>(cache->data) + static_cast<size_t>(slot) * cache->nb[1];
  }

  void fill_rows(ggml_tensor* cache, Row row, int layer) {
    std::vector<float> numbers(static_cast<size_t>(kv_width()));
    for (int64_t slot = 0; slot < problem_.slots; ++slot) {
      for (int head = 0; head < problem_.kv_heads; ++head) {
        fill_row(problem_, row, layer, head, slot, numbers.data() + head * problem_.head_dim);
      }
      ggml_quantize_chunk(type_, numbers.data(), row_of(cache, slot), 0, 1, kv_width(), nullptr);
    }
  }

  void fill_transposed(ggml_tensor* cache, int layer) {
    auto* const to = static_cast<ggml_fp16_t*>(cache->data);
    std::vector<float> numbers(static_cast<size_t>(problem_.head_dim));
    for (int head = 0; head < problem_.kv_heads; ++head) {
      for (int64_t slot = 0; slot < problem_.slots; ++slot) {
        fill_row(problem_, Row::kValue, layer, head, slot, numbers.data());
        for (int i = 0; i < problem_.head_dim; ++i) {
          to[(int64_t{head} * problem_.head_dim + i) * problem_.slots + slot] =
              ggml_fp32_to_fp16(numbers[static_cast<size_t>(i)]);
        }
      }
    }
  }

  Problem problem_;
  ggml_type type_;
  bool flash_;
  Arena arena_;
  Context context_;
  Backend backend_;
  Buffer cache_buffer_;
  Allocator allocator_;
  ggml_cgraph* graph_ = nullptr;  // in context_
  ggml_tensor* mask_ = nullptr;   // all zero: every slot is seen
  std::vector<Layer> layers_;
};

}  // namespace

std::unique_ptr<Attention> ggml_attention(const Problem& problem, const GgmlOptions& options) {
  DMC_CHECK(options.flash || options.type == std::string_view("f16"));
  return std::make_unique<GgmlAttention>(problem, options);
}

}  // namespace dmc::peers
