#include "kernels/pooling.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/parallel.h"
#include "base/rng.h"

namespace dmc::kernels {
namespace {

using Values = std::vector<double>;

// One random problem: inputs as logits, so that it can be differentiated by them.
struct Problem {
  PoolShape shape;
  Values k, v, alpha_logit, omega_logit;
  Values gk, gv;  // gradients of the outputs: the loss is their inner product

  Problem(const PoolShape& s, double sharpness, uint64_t seed) : shape(s) {
    Rng rng(seed);
    const auto fill = [&](Values& values, int64_t size, double range) {
      for (int64_t i = 0; i < size; ++i) values.push_back(range * (2.0 * rng.uniform() - 1.0));
    };
    const int64_t scalars = s.batch * s.tokens * s.heads;
    for (Values* values : {&k, &v, &gk, &gv}) fill(*values, scalars * s.dim, 1.0);
    fill(alpha_logit, scalars, sharpness);
    fill(omega_logit, scalars, 2.0);
  }
};

Values sigmoid(const Values& logits) {
  Values out;
  for (double x : logits) out.push_back(1.0 / (1.0 + std::exp(-x)));
  return out;
}

struct Outputs {
  Values k, v, total;
};

Outputs forward(const PoolShape& shape, const Values& k, const Values& v, const Values& alpha,
                const Values& omega) {
  Outputs out{Values(k.size()), Values(v.size()), Values(alpha.size())};
  pool_forward(shape, k.data(), v.data(), alpha.data(), omega.data(), out.k.data(), out.v.data(),
               out.total.data());
  return out;
}

// The formula of the header, term by term.
Outputs literal(const PoolShape& s, const Values& k, const Values& v, const Values& alpha,
                const Values& omega) {
  Outputs out{Values(k.size()), Values(v.size()), Values(alpha.size())};
  const auto at = [&](int64_t b, int64_t t, int64_t h) {
    return static_cast<size_t>((b * s.tokens + t) * s.heads + h);
  };
  const auto dim = static_cast<size_t>(s.dim);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t h = 0; h < s.heads; ++h) {
      for (int64_t t = 0; t < s.tokens; ++t) {
        const size_t to = at(b, t, h);
        for (int64_t j = s.window == 0 ? 0 : std::max<int64_t>(0, t - s.window + 1); j <= t; ++j) {
          const size_t from = at(b, j, h);
          double weight = omega[from];
          for (int64_t m = j + 1; m <= t; ++m) weight *= alpha[at(b, m, h)];
          out.total[to] += weight;
          for (size_t i = 0; i < dim; ++i) {
            out.k[to * dim + i] += weight * k[from * dim + i];
            out.v[to * dim + i] += weight * v[from * dim + i];
          }
        }
        for (size_t i = 0; i < dim; ++i) {
          out.k[to * dim + i] /= out.total[to];
          out.v[to * dim + i] /= out.total[to];
        }
      }
    }
  }
  return out;
}

void expect_near(const Values& a, const Values& b, double tolerance, const char* what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], tolerance) << what << " at " << i;
}

constexpr int kWindows[] = {0, 1, 12};

TEST(Pooling, SoftDecisionsEqualTheFormula) {
  for (int window : kWindows) {
    for (double sharpness : {1.0, 30.0}) {  // 30: the walk over a segment stops early
      SCOPED_TRACE("window " + std::to_string(window));
      const Problem p({2, 50, 3, 20, window}, sharpness, 1);
      const Values alpha = sigmoid(p.alpha_logit), omega = sigmoid(p.omega_logit);
      const Outputs fast = forward(p.shape, p.k, p.v, alpha, omega);
      const Outputs slow = literal(p.shape, p.k, p.v, alpha, omega);
      expect_near(fast.k, slow.k, 1e-13, "k");
      expect_near(fast.v, slow.v, 1e-13, "v");
      expect_near(fast.total, slow.total, 1e-12, "total");
    }
  }
}

TEST(Pooling, HardDecisionsEqualTheFormula) {
  for (int window : kWindows) {
    SCOPED_TRACE("window " + std::to_string(window));
    const Problem p({1, 60, 2, 16, window}, 1.0, 2);
    Values alpha;
    for (double x : p.alpha_logit) alpha.push_back(x > -0.5 ? 1.0 : 0.0);
    const Values omega = sigmoid(p.omega_logit);
    const Outputs fast = forward(p.shape, p.k, p.v, alpha, omega);
    const Outputs slow = literal(p.shape, p.k, p.v, alpha, omega);
    expect_near(fast.k, slow.k, 1e-14, "k");
    expect_near(fast.v, slow.v, 1e-14, "v");
  }
}

double loss(const Problem& p) {
  const Outputs out = literal(p.shape, p.k, p.v, sigmoid(p.alpha_logit), sigmoid(p.omega_logit));
  double sum = 0.0;
  for (size_t i = 0; i < out.k.size(); ++i) sum += p.gk[i] * out.k[i] + p.gv[i] * out.v[i];
  return sum;
}

// Central differences of the loss by every element of `input`, a member of p.
Values numeric_gradient(Problem& p, Values& input) {
  constexpr double kStep = 1e-5;
  Values gradient;
  for (double& x : input) {
    const double kept = x;
    x = kept + kStep;
    const double above = loss(p);
    x = kept - kStep;
    gradient.push_back((above - loss(p)) / (2.0 * kStep));
    x = kept;
  }
  return gradient;
}

TEST(Pooling, GradientsEqualCentralDifferences) {
  for (int window : {0, 1, 4}) {
    for (double sharpness : {1.0, 6.0}) {
      SCOPED_TRACE("window " + std::to_string(window));
      Problem p({2, 12, 2, 3, window}, sharpness, 3);
      const Values alpha = sigmoid(p.alpha_logit), omega = sigmoid(p.omega_logit);
      const Outputs out = forward(p.shape, p.k, p.v, alpha, omega);
      Values dk(p.k.size()), dv(p.v.size()), dalpha(alpha.size()), domega(omega.size());
      pool_backward(p.shape, p.k.data(), p.v.data(), alpha.data(), omega.data(), out.k.data(),
                    out.v.data(), out.total.data(), p.gk.data(), p.gv.data(), dk.data(), dv.data(),
                    dalpha.data(), domega.data());
      // The differences' own error: kStep^2 and rounding / kStep, about 1e-10 each.
      expect_near(dk, numeric_gradient(p, p.k), 1e-8, "dk");
      expect_near(dv, numeric_gradient(p, p.v), 1e-8, "dv");
      expect_near(dalpha, numeric_gradient(p, p.alpha_logit), 1e-8, "dalpha");
      expect_near(domega, numeric_gradient(p, p.omega_logit), 1e-8, "domega");
    }
  }
}

// Training must give the same numbers whatever the machine.
TEST(Pooling, ThreadsDoNotChangeABit) {
  const Problem p({3, 40, 2, 16, 12}, 4.0, 4);
  const Values alpha = sigmoid(p.alpha_logit), omega = sigmoid(p.omega_logit);
  const int threads_before = num_threads();
  std::vector<Values> gradients;
  for (int threads : {1, 3}) {
    set_num_threads(threads);
    const Outputs out = forward(p.shape, p.k, p.v, alpha, omega);
    Values dk(p.k.size()), dv(p.v.size()), dalpha(alpha.size()), domega(omega.size());
    pool_backward(p.shape, p.k.data(), p.v.data(), alpha.data(), omega.data(), out.k.data(),
                  out.v.data(), out.total.data(), p.gk.data(), p.gv.data(), dk.data(), dv.data(),
                  dalpha.data(), domega.data());
    for (const Values& values : {dv, dalpha, domega})
      dk.insert(dk.end(), values.begin(), values.end());
    gradients.push_back(dk);
  }
  set_num_threads(threads_before);
  EXPECT_EQ(gradients[0], gradients[1]);
}

}  // namespace
}  // namespace dmc::kernels
