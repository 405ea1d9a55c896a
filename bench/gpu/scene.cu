#include "scene.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/slot_page.h"

namespace dmc::bench {
namespace {

using namespace kernels::cuda;

constexpr double kBeyondL2 = 256e6;  // bytes that no L2 cache keeps a useful part of
constexpr int kMostLayers = 16;

std::vector<float> random_numbers(size_t count, Rng& rng) {
  std::vector<float> numbers(count);
  for (float& x : numbers) x = static_cast<float>(2.0 * rng.uniform() - 1.0);
  return numbers;
}

// `count` pages of random slots: a few of them, over and over.
DeviceArray<std::byte> random_pages(const kernels::PageFormat& format, int64_t count, Rng& rng) {
  constexpr int64_t kDifferent = 64;
  std::vector<float> memory(static_cast<size_t>(kDifferent * format.bytes() / 4));
  std::vector<std::byte*> table;
  for (int64_t page = 0; page < kDifferent; ++page) {
    table.push_back(reinterpret_cast<std::byte*>(memory.data()) + page * format.bytes());
    for (int slot = 0; slot < format.page_slots; ++slot) {
      const auto pair = random_numbers(static_cast<size_t>(2 * format.head_dim), rng);
      kernels::write_slot({table.data(), format}, static_cast<int32_t>(page), slot, pair.data(),
                          pair.data() + format.head_dim);
    }
  }
  DeviceArray<std::byte> pages(static_cast<size_t>(count * format.bytes()));
  for (int64_t page = 0; page < count; page += kDifferent) {
    const int64_t some = std::min(kDifferent, count - page);
    check(cudaMemcpy(pages.get() + page * format.bytes(), memory.data(),
                     static_cast<size_t>(some * format.bytes()), cudaMemcpyHostToDevice),
          "filling pages");
  }
  return pages;
}

}  // namespace

Scene::Scene(const SceneSpec& spec, int steps)
    : spec_(spec), shape_{spec.type, spec.head_dim, spec.group} {
  draw_lengths();
  make_cache(steps);
  make_tokens();
}

// As many layers as it takes to leave the L2 cache behind, with different lengths.
void Scene::draw_lengths() {
  const int64_t of_layer = int64_t{spec_.batch} * spec_.kv_heads;
  const auto draw = [&] {
    const double ratio = spec_.ragged ? std::exp2(3.0 * rng_.uniform()) : 1.0;
    lengths_.push_back(static_cast<int32_t>(spec_.slots / ratio));
  };
  for (int64_t i = 0; i < of_layer; ++i) draw();
  if (spec_.layers > 0) {
    layers_ = spec_.layers;
  } else {
    layers_ = std::clamp(static_cast<int>(std::ceil(kBeyondL2 / useful_bytes())), 1, kMostLayers);
  }
  while (static_cast<int64_t>(lengths_.size()) < streams()) draw();
}

void Scene::make_cache(int steps) {
  const kernels::PageFormat format{spec_.page_slots, spec_.head_dim, spec_.type};
  const int P = spec_.page_slots;
  const int64_t spare = steps / P + 1, max_pages = (spec_.slots + P - 1) / P + spare;
  int64_t count = 0;
  for (int32_t length : lengths_) count += (length + P - 1) / P + spare;
  std::vector<int32_t> ids(static_cast<size_t>(count));
  std::iota(ids.begin(), ids.end(), 0);
  for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[rng_.below(i)]);

  std::vector<int32_t> tables(static_cast<size_t>(streams() * max_pages), -1);
  for (size_t stream = 0; stream < lengths_.size(); ++stream) {
    for (int page = 0; page < (lengths_[stream] + P - 1) / P; ++page) {
      tables[stream * static_cast<size_t>(max_pages) + static_cast<size_t>(page)] = ids.back();
      ids.pop_back();
    }
  }
  const auto left = static_cast<int32_t>(ids.size());
  ids.resize(static_cast<size_t>(count));
  pages_ = random_pages(format, count, rng_);
  free_ = Array<int32_t>(ids);
  left_ = Array<int32_t>(std::vector<int32_t>{left});
  refused_ = Array<int32_t>(std::vector<int32_t>{0});
  closed_ = Array<int32_t>(lengths_);
  tables_ = Array<int32_t>(tables);
  counts_ = Array<int32_t>(std::vector<int32_t>(lengths_.size(), 1));
  heads_ = Array<int32_t>(std::vector<int32_t>(lengths_.size(), 0));
  const auto capacity = static_cast<size_t>(std::max(1, spec_.window));
  weights_ = Array<float>(std::vector<float>(lengths_.size() * capacity, 1.0f));
  pairs_ = Array<float>(lengths_.size() * (capacity + 1) * 2 * static_cast<size_t>(spec_.head_dim));
  pairs_.zero();
  pool_ = {pages_.get(), format.bytes(), P};
  references_ = Array<int32_t>(std::vector<int32_t>(static_cast<size_t>(count), 1));
  returned_ = Array<int32_t>(static_cast<size_t>(count));
  waiting_ = Array<int32_t>(std::vector<int32_t>{0});
  stack_ = {free_.get(),       left_.get(),     refused_.get(),
            references_.get(), returned_.get(), waiting_.get()};
  streams_ = {closed_.get(),  tables_.get(), counts_.get(), heads_.get(),
              weights_.get(), pairs_.get(),  max_pages,     spec_.window};
}

void Scene::make_tokens() {
  const size_t items = static_cast<size_t>(spec_.batch) * static_cast<size_t>(spec_.kv_heads);
  const auto d = static_cast<size_t>(spec_.head_dim);
  std::vector<int32_t> rows(static_cast<size_t>(spec_.batch));
  std::iota(rows.begin(), rows.end(), 0);
  rows_ = Array<int32_t>(rows);
  positions_ = Array<int32_t>(std::vector<int32_t>(rows.size(), 0));
  std::vector<uint8_t> merge;
  for (size_t i = 0; i < items; ++i) merge.push_back(rng_.below(4) != 0);
  merge_ = Array<uint8_t>(merge);
  importance_ = Array<float>(std::vector<float>(items, 1.0f));
  q_ = Array<float>(random_numbers(items * static_cast<size_t>(spec_.group) * d, rng_));
  k_ = Array<float>(random_numbers(items * d, rng_));
  v_ = Array<float>(random_numbers(items * d, rng_));
  out_ = Array<float>(q_.size());
  batch_ = {rows_.get(), spec_.batch, spec_.kv_heads, spec_.batch};
  workspace_ = {nullptr,        layers_,    batch_.items(), decode_workers(shape_),
                spec_.head_dim, spec_.group};
  work_ = Array<std::byte>(static_cast<size_t>(workspace_.bytes()));
  work_.zero();
  workspace_.memory = work_.get();
}

void Scene::plan(Stream stream) { plan_decode(streams_, batch_, workspace_, stream); }

void Scene::append(int layer, Stream stream) {
  take_tokens(shape_, pool_, stack_, streams_, batch_, layer,
              {k_.get(), v_.get(), merge_.get(), importance_.get(), positions_.get()},
              {nullptr, nullptr}, stream);
}

void Scene::attend(int layer, Stream stream) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(spec_.head_dim));
  decode_attention(shape_, pool_, streams_, batch_, layer, q_.get(), scale, out_.get(), workspace_,
                   stream);
}

double Scene::useful_bytes() const {
  const kernels::PageFormat format{spec_.page_slots, spec_.head_dim, spec_.type};
  const double slot_bytes = static_cast<double>(format.bytes()) / spec_.page_slots;
  double slots = 0.0;
  for (int32_t length : lengths_) slots += length;
  const double queries = static_cast<double>(spec_.batch) * spec_.kv_heads * spec_.group;
  return slots / layers_ * slot_bytes + queries * 2.0 * spec_.head_dim * 4.0;
}

}  // namespace dmc::bench
