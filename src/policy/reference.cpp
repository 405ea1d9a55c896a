#include "policy/reference.h"

#include <algorithm>
#include <cmath>

namespace dmc::policy {
namespace {

double dot(const Vector& a, const Vector& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void add_scaled(Vector& out, double factor, const Vector& in) {
  out.resize(in.size());
  for (size_t i = 0; i < in.size(); ++i) out[i] += factor * in[i];
}

Vector rotated(const Vector& in, int64_t position, double theta) {
  const size_t half = in.size() / 2;
  Vector out(in.size());
  for (size_t i = 0; i < half; ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(in.size());
    const double angle = static_cast<double>(position) * std::pow(theta, exponent);
    out[i] = in[i] * std::cos(angle) - in[half + i] * std::sin(angle);
    out[half + i] = in[half + i] * std::cos(angle) + in[i] * std::sin(angle);
  }
  return out;
}

Vector attend(const Vector& q, const std::vector<ReferenceSlot>& slots) {
  Vector scores;
  for (const ReferenceSlot& slot : slots) {
    scores.push_back(dot(q, slot.key) / std::sqrt(static_cast<double>(q.size())) + slot.mass);
  }
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0.0;
  for (double score : scores) sum += std::exp(score - max);
  Vector out;
  for (size_t s = 0; s < slots.size(); ++s) {
    add_scaled(out, std::exp(scores[s] - max) / sum, slots[s].value);
  }
  return out;
}

}  // namespace

// Keys are averaged before the rotary embedding; the mean gets the newest token's position.
ReferenceSlot ReferenceStream::pooled(const std::vector<Stored>& segment) const {
  const size_t count =
      window_ == 0 ? segment.size() : std::min(segment.size(), static_cast<size_t>(window_));
  double total = 0.0;
  for (size_t i = segment.size() - count; i < segment.size(); ++i) total += segment[i].importance;
  ReferenceSlot slot;
  for (size_t i = segment.size() - count; i < segment.size(); ++i) {
    add_scaled(slot.key, segment[i].importance / total, segment[i].k);
    add_scaled(slot.value, segment[i].importance / total, segment[i].v);
  }
  if (mass_term_) slot.mass = std::log(static_cast<double>(segment.size()));
  if (rope_theta_ > 0.0) slot.key = rotated(slot.key, segment.back().position, rope_theta_);
  return slot;
}

std::vector<ReferenceSlot> ReferenceStream::slots() const {
  std::vector<ReferenceSlot> slots;
  for (const std::vector<Stored>& segment : segments_) slots.push_back(pooled(segment));
  return slots;
}

std::vector<Vector> ReferenceStream::step(const ReferenceToken& token) {
  if (!token.merge || segments_.empty()) segments_.emplace_back();
  segments_.back().push_back({token.k, token.v, token.importance, length_++});
  const std::vector<ReferenceSlot> all = slots();
  std::vector<Vector> out;
  for (const Vector& q : token.q) out.push_back(attend(q, all));
  return out;
}

}  // namespace dmc::policy
