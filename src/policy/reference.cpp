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
ReferenceSlot ReferenceStream::slot_of(const Segment& segment) const {
  const size_t window = static_cast<size_t>(options_.window);
  const size_t count = window == 0 ? segment.size() : std::min(segment.size(), window);
  const auto weight = [&](size_t i) {
    const bool newest = i + 1 == segment.size();
    return newest && options_.newest_weighs_one ? 1.0 : segment[i].importance;
  };
  double total = 0.0;
  for (size_t i = segment.size() - count; i < segment.size(); ++i) total += weight(i);
  ReferenceSlot slot;
  for (size_t i = segment.size() - count; i < segment.size(); ++i) {
    add_scaled(slot.key, weight(i) / total, segment[i].k);
    add_scaled(slot.value, weight(i) / total, segment[i].v);
  }
  if (options_.mass_term) slot.mass = std::log(static_cast<double>(segment.size()));
  if (options_.rope_theta > 0.0) {
    slot.key = rotated(slot.key, segment.back().position, options_.rope_theta);
  }
  return slot;
}

// Which tokens share a slot: those no longer raw by their decisions, raw ones with nobody.
std::vector<ReferenceStream::Segment> ReferenceStream::segments() const {
  std::vector<Segment> segments;
  const auto first_raw = std::ssize(tokens_) - options_.delay;
  for (const Stored& token : tokens_) {
    const bool raw = token.position >= first_raw;
    if (raw || segments.empty() || token.decision == Decision::kAppend) segments.emplace_back();
    if (!raw && token.decision == Decision::kDropPrevious) segments.back().clear();
    segments.back().push_back(token);
  }
  return segments;
}

std::vector<ReferenceSlot> ReferenceStream::slots() const {
  std::vector<ReferenceSlot> slots;
  for (const Segment& segment : segments()) slots.push_back(slot_of(segment));
  return slots;
}

std::vector<Vector> ReferenceStream::step(const ReferenceToken& token) {
  tokens_.push_back({token.k, token.v, token.decision, token.importance, std::ssize(tokens_)});
  const std::vector<ReferenceSlot> all = slots();
  std::vector<Vector> out;
  for (const Vector& q : token.q) out.push_back(attend(q, all));
  return out;
}

}  // namespace dmc::policy
