// bench_gpu [--small] [PART...]: how fast the CUDA kernels are beside what the GPU can do. Parts:
// copy, decode, step, prefill, pooling; default: all. One line of JSON a result, printed at once.
// --small: tiny sizes, to see that the program works (on the emulated GPU); times mean nothing.
#include <cuda_bf16.h>

#include <cmath>
#include <cstring>
#include <span>

#include "base/named.h"
#include "kernels/cuda/attention/prefill.h"
#include "kernels/cuda/rows/pooling.h"
#include "scene.h"
#include "timing.h"

namespace dmc::bench {
namespace {

using namespace kernels::cuda;

// What a part runs with.
struct Run {
  bool small = false;

  // A size, or the one that stands for it when all is small.
  template <class T>
  T size(T usual, T tiny) const {
    return small ? std::min(usual, tiny) : usual;
  }
  SceneSpec sized(SceneSpec spec) const {
    spec.batch = size(spec.batch, 2);
    spec.kv_heads = size(spec.kv_heads, 2);
    spec.slots = size(spec.slots, 80);
    if (small) spec.layers = 2;
    return spec;
  }
  template <class Work>
  Times time(Work&& work, int replays = 50) const {
    return time_graph(work, size(3, 0), size(replays, 2));
  }
};

// Bytes read and written per microsecond by a copy on the device: what memory can give.
double copy_rate(const Run& run) {
  static const double rate = [&] {
    const size_t bytes = run.size(size_t{1} << 30, size_t{1} << 20);
    const DeviceArray<std::byte> from(bytes), to(bytes);
    const Times times = run.time([&](cudaStream_t stream) {
      check(cudaMemcpyAsync(to.get(), from.get(), bytes, cudaMemcpyDeviceToDevice, stream),
            "copying");
    });
    return 2.0 * static_cast<double>(bytes) / times.median_us;
  }();
  return rate;
}

void bench_copy(const Run& run) { report("copy", {{"GB/s", copy_rate(run) * 1e-3}}); }

std::string text(const SceneSpec& s) {
  return s.name + " " + std::string(dtype_name(s.type)) +
         " kv_heads=" + std::to_string(s.kv_heads) + " group=" + std::to_string(s.group) +
         " batch=" + std::to_string(s.batch) + " slots=" + std::to_string(s.slots) +
         (s.ragged ? " ragged" : "");
}

// Attention alone, layer by layer in one graph.
void bench_attention(const Run& run, const SceneSpec& usual) {
  const SceneSpec spec = run.sized(usual);
  Scene scene(spec);
  scene.plan(nullptr);
  const Times times = run.time([&](cudaStream_t stream) {
    for (int layer = 0; layer < scene.layers(); ++layer) scene.attend(layer, stream);
  });
  const double us = times.median_us / scene.layers(), bytes = scene.useful_bytes();
  report(text(spec), {{"us_a_layer", us},
                      {"p10_us", times.p10_us / scene.layers()},
                      {"p90_us", times.p90_us / scene.layers()},
                      {"MB", bytes * 1e-6},
                      {"GB/s", bytes / us * 1e-3},
                      {"of_copy", bytes / us / copy_rate(run)}});
}

void bench_decode(const Run& run) {
  using enum DType;
  // The targets' cases (docs/performance.md), then sweeps. Ratios log-uniform from 1 to 8 leave 42%
  // of the slots, so ragged streams of up to 4,867 have the bytes of uniform ones of 2,048.
  const SceneSpec cases[] = {
      {"G1", kBF16, 32, 1, 16, 2048, false},  {"G2", kBF16, 32, 1, 16, 4867, true},
      {"G3", kBF16, 32, 1, 4, 4096, true},    {"G4", kBF16, 32, 1, 1, 4096, true},
      {"G5", kBF16, 8, 4, 64, 2048, false},   {"G5", kBF16, 8, 4, 64, 4867, true},
      {"G5", kBF16, 8, 8, 64, 2048, false},   {"G5", kBF16, 8, 8, 64, 4867, true},
      {"G6", kI8, 32, 1, 16, 2048, false},    {"G6", kI8, 32, 1, 16, 4867, true},
      {"G6", kI8, 8, 4, 64, 4867, true},      {"G6", kF8E4M3, 32, 1, 16, 2048, false},
      {"G6", kF8E4M3, 32, 1, 16, 4867, true}, {"G6", kF8E4M3, 8, 4, 64, 4867, true},
      {"f16", kF16, 32, 1, 16, 2048, false},  {"f32", kF32, 32, 1, 16, 2048, false},
  };
  for (const SceneSpec& spec : cases) bench_attention(run, spec);
  for (int batch = 1; batch <= 256; batch *= 4) {
    for (int group : {1, 4, 8}) {
      bench_attention(run, {"sweep", kBF16, group == 1 ? 32 : 8, group, batch, 4096, true});
    }
  }
}

// What planning and append-or-merge add to a step of attention.
void bench_step(const Run& run) {
  for (int batch : {1, 16, 64}) {
    SceneSpec spec = run.sized({"step", DType::kBF16, 32, 1, batch, 4096, true});
    spec.layers = 4;
    Scene scene(spec, 128);
    const auto whole = [&](cudaStream_t stream) {
      scene.plan(stream);
      for (int layer = 0; layer < scene.layers(); ++layer) {
        scene.append(layer, stream);
        scene.attend(layer, stream);
      }
    };
    const auto attention = [&](cudaStream_t stream) {
      for (int layer = 0; layer < scene.layers(); ++layer) scene.attend(layer, stream);
    };
    const double all = run.time(whole).median_us, some = run.time(attention).median_us;
    const double plan = run.time([&](cudaStream_t stream) { scene.plan(stream); }).median_us;
    report(text(spec), {{"us_a_layer", all / scene.layers()},
                        {"attention_us", some / scene.layers()},
                        {"plan_us_a_step", plan},
                        {"other_share", (all - some) / all},
                        {"refused", scene.refused()}});
  }
}

// A prompt of one sequence, 32 heads of 128, every `cr`-th token opening a slot.
void bench_prompt(const Run& run, int tokens, int cr) {
  constexpr int kDim = 128;
  const int heads = run.size(32, 2);
  const DecodeShape shape{DType::kBF16, kDim, 1};
  const size_t scalars = static_cast<size_t>(tokens) * static_cast<size_t>(heads),
               numbers = scalars * kDim;
  const int64_t max_pages = tokens / cr / 16 + 2;
  const auto pages = static_cast<size_t>(heads * max_pages);
  const int64_t page_bytes = 16 * 2 * kDim * 2;
  Rng rng(1);
  std::vector<float> random(numbers);
  for (float& x : random) x = static_cast<float>(2.0 * rng.uniform() - 1.0);
  std::vector<uint8_t> merge(scalars);
  for (size_t i = 0; i < scalars; ++i)
    merge[i] = i / static_cast<size_t>(heads) % static_cast<size_t>(cr) != 0;
  std::vector<int32_t> ids(pages);
  for (size_t i = 0; i < pages; ++i) ids[i] = static_cast<int32_t>(i);
  const DeviceArray<float> q(random), k(random), v(random),
      importance(std::vector<float>(scalars, 1.0f)), own_key(numbers), own_value(numbers),
      out(numbers), weights(static_cast<size_t>(heads) * 12),
      pairs(static_cast<size_t>(heads) * 13 * 2 * kDim);
  const DeviceArray<uint8_t> merges(merge);
  const DeviceArray<std::byte> memory(pages * static_cast<size_t>(page_bytes));
  const DeviceArray<int32_t> visible(scalars), free(ids), references(pages), returned(pages),
      tables(pages), full(std::vector<int32_t>{static_cast<int32_t>(pages)}), left(1),
      zeros(std::vector<int32_t>(200, 0));
  const PagePool pool{memory.get(), page_bytes, 16};
  const PageStack stack{free.get(),       left.get(),     zeros.get(),
                        references.get(), returned.get(), zeros.get() + 1};
  const Streams streams{zeros.get() + 8, tables.get(), zeros.get() + 64, zeros.get() + 128,
                        weights.get(),   pairs.get(),  max_pages,        12};
  const PromptChunk chunk{tokens,
                          heads,
                          kDim,
                          0,
                          zeros.get() + 2,
                          nullptr,
                          k.get(),
                          v.get(),
                          merges.get(),
                          importance.get(),
                          nullptr,
                          nullptr,
                          own_key.get(),
                          own_value.get(),
                          visible.get()};
  // A second taking in would go on behind the first, so it is timed from the same state.
  const Times whole = run.time(
      [&](cudaStream_t stream) {
        check(cudaMemsetAsync(zeros.get(), 0, zeros.bytes(), stream), "starting anew");
        check(cudaMemcpyAsync(left.get(), full.get(), 4, cudaMemcpyDeviceToDevice, stream),
              "starting anew");
        take_prompt(shape, pool, stack, streams, chunk, stream);
      },
      10);
  const Times attention = run.time(
      [&](cudaStream_t stream) {
        prefill_attention(shape, pool, streams, chunk, q.get(), 0.088f, out.get(), stream);
      },
      10);
  const double flops = 4.0 * kDim * heads * (static_cast<double>(tokens) * tokens / 2.0) / cr;
  report("prefill tokens=" + std::to_string(tokens) + " cr=" + std::to_string(cr),
         {{"attention_us", attention.median_us},
          {"TFLOP/s", flops / attention.median_us * 1e-6},
          {"take_us", whole.median_us}});
}

void bench_prefill(const Run& run) {
  for (int tokens : {run.size(4096, 40), run.size(32768, 70)}) {
    for (int cr : {1, 4, 8}) bench_prompt(run, tokens, cr);
  }
}

// A training step's pooling of one layer: 2 x 4,096 tokens, 32 heads of 128, bf16.
void bench_pooling(const Run& run) {
  const kernels::PoolShape shape{2, run.size<int64_t>(4096, 40), run.size<int64_t>(32, 2), 128, 12};
  const auto scalars = static_cast<size_t>(shape.batch * shape.tokens * shape.heads);
  const size_t numbers = scalars * 128;
  using Halves = DeviceArray<__nv_bfloat16>;
  std::vector<__nv_bfloat16> random;
  Rng rng(1);
  for (size_t i = 0; i < numbers; ++i) random.emplace_back(static_cast<float>(rng.uniform()));
  const Halves k(random), v(random), gk(random), gv(random), k_out(numbers), v_out(numbers),
      dk(numbers), dv(numbers);
  const DeviceArray<float> alpha(std::vector<float>(scalars, 0.75f)),
      omega(std::vector<float>(scalars, 0.9f)), total(scalars), dalpha(scalars), domega(scalars),
      pull(scalars * 12);
  const PoolTensors<__nv_bfloat16> x{shape,        k.get(),      v.get(),     alpha.get(),
                                     omega.get(),  k_out.get(),  v_out.get(), total.get(),
                                     gk.get(),     gv.get(),     dk.get(),    dv.get(),
                                     dalpha.get(), domega.get(), pull.get()};
  const Times forward = run.time([&](cudaStream_t stream) { pool_forward(x, stream); });
  const Times backward = run.time([&](cudaStream_t stream) { pool_backward(x, stream); });
  const double bytes = 2.0 * static_cast<double>(numbers);  // of a tensor
  report("pooling", {{"forward_us", forward.median_us},
                     {"forward_of_copy", 4 * bytes / forward.median_us / copy_rate(run)},
                     {"backward_us", backward.median_us},
                     {"backward_of_copy", 8 * bytes / backward.median_us / copy_rate(run)}});
}

struct Part {
  std::string_view name;
  void (*run)(const Run&);
};

constexpr Part kParts[] = {
    {"copy", bench_copy},       {"decode", bench_decode},   {"step", bench_step},
    {"prefill", bench_prefill}, {"pooling", bench_pooling},
};

struct Arguments {
  Run run;
  std::vector<const Part*> parts;
};

Arguments parse(std::span<char*> words) {
  Arguments result;
  for (const char* word : words) {
    if (std::strcmp(word, "--small") == 0) {
      result.run.small = true;
    } else if (const Part* const part = find_named(kParts, word)) {
      result.parts.push_back(part);
    } else {
      throw invalid_argument(std::string("there is no part ") + word + "; there are " +
                             join(kParts, ", ", &Part::name));
    }
  }
  if (result.parts.empty()) {
    for (const Part& part : kParts) result.parts.push_back(&part);
  }
  return result;
}

}  // namespace
}  // namespace dmc::bench

int main(int argc, char** argv) {
  using namespace dmc::bench;
  try {
    if (!dmc::kernels::cuda::have_device()) throw dmc::invalid_argument("this machine has no GPU");
    const Arguments arguments = parse(std::span(argv + 1, static_cast<size_t>(argc - 1)));
    for (const Part* part : arguments.parts) part->run(arguments.run);
  } catch (const dmc::Error& error) {
    std::fprintf(stderr, "bench_gpu: %s\n", error.what());
    return dmc::exit_code(error.code());
  }
  return 0;
}
