// What DMC costs a training step: the same model's dense step and DMC step, in turn, in one run.
//
//   bench_train_step MODEL_DIR [LENGTH] [BATCH] [ROUNDS] [THREADS]
#include <ATen/Parallel.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/empty.h>
#include <malloc.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>

#include "io/corpus.h"
#include "ops/threads.h"
#include "train/optimizer.h"
#include "train/stage.h"

namespace {

using namespace dmc;

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

struct Contender {
  const char* stage;
  std::unique_ptr<train::TrainAttention> attention;
  std::vector<double> seconds;
};

void step(const models::Decoder& model, train::AdamW& optimizer, Contender& contender,
          const at::Tensor& batch, int64_t length, int64_t number) {
  const auto start = std::chrono::steady_clock::now();
  contender.attention->begin_step({0, 1, number, 1, 1.0});
  const at::Tensor logits =
      model.logits(model.hidden(batch.narrow(1, 0, length), *contender.attention));
  const at::Tensor loss =
      at::cross_entropy_loss(logits.flatten(0, 1), batch.narrow(1, 1, length).reshape({-1}));
  const at::Tensor extra = contender.attention->extra_loss();
  (extra.defined() ? loss + extra : loss).backward();
  optimizer.step(/*learning_rate=*/0.0);  // the work of an update, without its effect
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (number >= 0) contender.seconds.push_back(took.count());
}

int run(int argc, char** argv) {
  const auto number = [&](int index, int64_t otherwise) {
    return argc > index ? std::atoll(argv[index]) : otherwise;
  };
  train::TrainOptions options;
  options.model_dir = argv[1];
  options.length = number(2, 2048);
  options.batch = number(3, 2);
  options.weight_decay = 0.0;
  const int64_t rounds = number(4, 9);
  ops::set_threads(static_cast<int>(number(5, 0)));
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());

  const models::Decoder model = models::Decoder::load(options.model_dir);
  for (const auto& [name, parameter] : model.parameters()) parameter.set_requires_grad(true);
  train::AdamW optimizer(model.parameters(), options);
  const io::Tokenizer tokenizer(options.model_dir);
  const io::Corpus corpus(io::builtin_corpus(io::Split::kTrain), io::Split::kTrain);
  io::TokenFeed feed(corpus, tokenizer, 0, 1);
  std::vector<int32_t> ids(static_cast<size_t>(options.batch * (options.length + 1)));
  const at::Tensor batch = at::empty({options.batch, options.length + 1}, at::kLong);

  Contender contenders[] = {{"dense", nullptr, {}}, {"finetune", nullptr, {}}};
  for (Contender& c : contenders) {
    c.attention = train::find_stage(c.stage)->attention(model.config(), options);
  }
  for (int64_t round = -1; round < rounds; ++round) {  // the first one warms up
    feed.read(ids);
    std::copy(ids.begin(), ids.end(), batch.mutable_data_ptr<int64_t>());
    for (Contender& c : contenders) step(model, optimizer, c, batch, options.length, round);
  }
  const double tokens = static_cast<double>(options.batch * options.length);
  const double dense = median(contenders[0].seconds), dmc = median(contenders[1].seconds);
  std::printf("%lld x %lld tokens, %d threads, median of %lld rounds\n",
              static_cast<long long>(options.batch), static_cast<long long>(options.length),
              at::get_num_threads(), static_cast<long long>(rounds));
  std::printf("dense  %7.0f tok/s\nDMC    %7.0f tok/s\nratio  %7.3f\n", tokens / dense,
              tokens / dmc, dense / dmc);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_train_step MODEL_DIR [LENGTH] [BATCH] [ROUNDS] [THREADS]\n");
    return 2;
  }
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_train_step: %s\n", error.what());
    return 1;
  }
}
