#include "train/shares.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "dist/thread_groups.h"

namespace dmc::train {
namespace {

std::map<std::string, at::Tensor> parameters_of(const std::vector<int64_t>& sizes) {
  std::map<std::string, at::Tensor> result;
  for (size_t i = 0; i < sizes.size(); ++i) {
    result[std::to_string(i)] = at::zeros({sizes[i]}).set_requires_grad(true);
  }
  return result;
}

TEST(Shares, NoRankHasMoreThanOneTensorAboveItsEqualPart) {
  const std::vector<int64_t> sizes = {100, 7, 7, 50, 3, 90, 1, 64};
  auto parameters = parameters_of(sizes);
  parameters["frozen"] = at::zeros({1000});
  for (const int ranks : {1, 2, 3, 20}) {
    const auto shared = share_out(parameters, ranks);
    ASSERT_EQ(shared.size(), sizes.size());
    std::vector<int64_t> load(static_cast<size_t>(ranks), 0);
    for (const OwnedParameter& p : shared)
      load.at(static_cast<size_t>(p.owner)) += p.parameter.numel();
    EXPECT_LE(*std::ranges::max_element(load), 322 / ranks + 100);
    EXPECT_EQ(std::accumulate(load.begin(), load.end(), int64_t{0}), 322);
  }
}

TEST(Shares, BucketsHoldEveryParameterOnceAndStayBelowTheirLimit) {
  const auto shared = share_out(parameters_of({100, 7, 7, 50, 3, 90, 1, 64}), 2);
  std::set<const void*> seen;
  for (const Bucket& bucket : buckets_of(shared, 2, /*elements=*/70)) {
    int64_t elements = 0;
    for (const at::Tensor& p : bucket.parameters) {
      elements += p.numel();
      EXPECT_TRUE(seen.insert(p.unsafeGetTensorImpl()).second);
    }
    EXPECT_TRUE(elements <= 70 || bucket.parameters.size() == 1) << elements;
  }
  EXPECT_EQ(seen.size(), 8u);
  EXPECT_EQ(buckets_of(shared, 2, 1000).size(), 2u) << "one call each suffices";
}

// Of one bucket whose owner is rank 1: gradients meet there, parameters go out from there.
TEST(Shares, GradientsMeetAtTheOwnerAndParametersComeFromIt) {
  dist::run_as_threads(3, [](dist::Group& group) {
    const at::NoGradGuard no_grad;
    const double mine = group.rank() + 1;  // the sum is 6
    const Bucket bucket = {1, {at::full({2, 3}, mine), at::full({4}, -mine), at::full({1}, mine)}};
    bucket.parameters[0].mutable_grad() = at::full({2, 3}, mine);
    bucket.parameters[1].mutable_grad() = at::arange(4) * mine;  // and none for the last
    sum_gradients(bucket, group);
    for (const at::Tensor& p : bucket.parameters) {
      EXPECT_EQ(p.grad().defined(), group.rank() == 1);
    }
    if (group.rank() == 1) {
      EXPECT_TRUE(at::equal(bucket.parameters[0].grad(), at::full({2, 3}, 6.0)));
      EXPECT_TRUE(at::equal(bucket.parameters[1].grad(), at::arange(4) * 6.0));
      EXPECT_TRUE(at::equal(bucket.parameters[2].grad(), at::zeros({1})));
    }
    spread_parameters(bucket, group);
    EXPECT_TRUE(at::equal(bucket.parameters[0], at::full({2, 3}, 2.0)));
    EXPECT_TRUE(at::equal(bucket.parameters[1], at::full({4}, -2.0)));
    EXPECT_TRUE(at::equal(bucket.parameters[2], at::full({1}, 2.0)));
  });
}

}  // namespace
}  // namespace dmc::train
