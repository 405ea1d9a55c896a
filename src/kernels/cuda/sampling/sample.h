// From a row of logits to the next token, by a team of lanes: engine::sample() without sorting the
// vocabulary. A token's probability is a whole number of 2^-40ths of the likeliest one's, so sums
// have the same bits in whatever order lanes add; which token is drawn can differ from the CPU only
// where the random number falls within about 1e-7 of the border between two.
#pragma once

#include <cmath>
#include <cstdint>

#include "base/rng.h"
#include "kernels/cuda/lanes/portable.h"

namespace dmc::kernels::cuda {

// Stop tokens that a step can look out for.
constexpr int kMostStops = 16;

// How the next token of a sequence is chosen; as engine::SamplingOptions.
struct SamplingRow {
  float temperature = 0.0f;  // 0: the likeliest token
  int32_t top_k = 0;
  double top_p = 1.0;
  uint64_t seed = 0;
  int32_t stops[kMostStops] = {};  // the text ends with one of these
  int32_t stop_count = 0;

  DMC_HOST_DEVICE bool ends(int32_t token) const {
    for (int i = 0; i < stop_count; ++i) {
      if (stops[i] == token) return true;
    }
    return false;
  }
};

// What the rows of a step are about, [batch] each. Choosing tokens makes them those of the next
// step: its token, a position further. A row whose text has ended is no longer in use (-1).
struct StepRows {
  int32_t *rows, *tokens, *positions;
  const SamplingRow* sampling;
};

// The likeliest token, the lowest of equals; -1 if a logit is not a number. As engine::sample at
// temperature 0. All lanes get it. Tokens are compared as floats, exact below 2^24.
template <class Team>
DMC_DEVICE int32_t likeliest_token(const float* logits, int32_t vocab) {
  float best = -INFINITY, nan = 0.0f;
  for (int32_t i = Team::lane(); i < vocab; i += Team::size()) {
    if (logits[i] != logits[i]) nan = 1.0f;
    best = fmaxf(best, logits[i]);
  }
  if (Team::max(nan) > 0.0f) return -1;
  best = Team::max(best);
  float first = -static_cast<float>(vocab);  // minus the token, so that the lowest is the maximum
  for (int32_t i = Team::lane(); i < vocab; i += Team::size()) {
    if (logits[i] == best) first = fmaxf(first, -static_cast<float>(i));
  }
  return static_cast<int32_t>(-Team::max(first));
}

// --- Sampling: searches in the order of likelihood ---

// A token's place in that order is a number of 55 bits: its logit, then its id. A search finds the
// token at which the sum over all up to it reaches a bound, 11 bits at a time: one pass over the
// vocabulary sums up what falls into each of 2048 bins, and the next looks into one bin alone.
constexpr int kDigitBits = 11, kBins = 1 << kDigitBits, kIdBits = 23;
constexpr int kTopDigit = 55 - kDigitBits;
constexpr int kBinsOfGroup = 32;
constexpr int64_t kMostSampledTokens = int64_t{1} << kIdBits;  // of a vocabulary

// Likelier tokens first, of equals the lower id.
DMC_HOST_DEVICE uint64_t rank_of(float logit, int32_t id) {
  const float same_zeros = logit + 0.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &same_zeros, sizeof(bits));
  const uint32_t descending = (bits & 0x80000000u) != 0 ? bits : 0x7fffffffu - bits;
  return static_cast<uint64_t>(descending) << kIdBits | static_cast<uint64_t>(id);
}

struct Vocabulary {
  const float* logits;
  int32_t size;
  float max, temperature;

  DMC_HOST_DEVICE uint64_t mass(int32_t id) const {
    return static_cast<uint64_t>(expf((logits[id] - max) / temperature) * 0x1p40f);
  }
};

// How many tokens, and the sum of their masses. (What lies in shared memory has no initializers.)
struct TokenSum {
  uint64_t count, mass;
};

// Shared by the lanes.
struct SearchBins {
  uint32_t count[kBins];
  uint32_t low[kBins], high[kBins];  // halves of the mass: devices add 32 bits at once
  int32_t id[kBins];                 // of a token in the bin
  TokenSum groups[kBins / kBinsOfGroup];
  int32_t found;      // bin
  TokenSum in_front;  // of it

  DMC_HOST_DEVICE TokenSum sum(int bin) const {
    return {count[bin], static_cast<uint64_t>(high[bin]) << 32 | low[bin]};
  }
};

DMC_HOST_DEVICE TokenSum operator+(const TokenSum& a, const TokenSum& b) {
  return {a.count + b.count, a.mass + b.mass};
}

template <class Team>
DMC_DEVICE void add_to_bin(SearchBins& bins, int bin, uint64_t mass, int32_t id) {
  Team::add(&bins.count[bin], 1u);
  bins.id[bin] = id;
  const auto low = static_cast<uint32_t>(mass);
  const uint32_t before = Team::add(&bins.low[bin], low);
  const uint32_t high = static_cast<uint32_t>(mass >> 32) + (before + low < before ? 1u : 0u);
  if (high != 0) Team::add(&bins.high[bin], high);
}

// Sums up the tokens whose ranks, as far as they lie above the digit at `shift`, are `prefix`.
template <class Team>
DMC_DEVICE void fill_bins(const Vocabulary& of, uint64_t prefix, int shift, SearchBins& bins) {
  for (int bin = Team::lane(); bin < kBins; bin += Team::size()) {
    bins.count[bin] = bins.low[bin] = bins.high[bin] = 0;
  }
  Team::sync();
  for (int32_t id = Team::lane(); id < of.size; id += Team::size()) {
    const uint64_t digits = rank_of(of.logits[id], id) >> shift;
    if (digits >> kDigitBits != prefix) continue;
    add_to_bin<Team>(bins, static_cast<int>(digits & (kBins - 1)), of.mass(id), id);
  }
  Team::sync();
  for (int group = Team::lane(); group < kBins / kBinsOfGroup; group += Team::size()) {
    TokenSum sum{};
    for (int i = 0; i < kBinsOfGroup; ++i) sum = sum + bins.sum(group * kBinsOfGroup + i);
    bins.groups[group] = sum;
  }
  Team::sync();
}

// What a search adds up until it reaches `bound`.
struct Bound {
  bool of_mass;
  uint64_t bound;

  DMC_HOST_DEVICE bool reached(const TokenSum& sum) const {
    return (of_mass ? sum.mass : sum.count) >= bound;
  }
};

// bins.found: the first bin at which the sum reaches the bound (the last one if none does), with
// the sum in front of it. For one lane.
DMC_HOST_DEVICE void find_bin(const Bound& bound, SearchBins& bins) {
  int bin = 0;
  for (int group = 0; bin + kBinsOfGroup < kBins; ++group, bin += kBinsOfGroup) {
    const TokenSum next = bins.in_front + bins.groups[group];
    if (bound.reached(next)) break;
    bins.in_front = next;
  }
  for (; bin + 1 < kBins; ++bin) {
    const TokenSum next = bins.in_front + bins.sum(bin);
    if (bound.reached(next)) break;
    bins.in_front = next;
  }
  bins.found = bin;
}

struct FoundToken {
  int32_t id;
  uint64_t mass;  // of all tokens up to it
};

// The first token at which the sum reaches the bound, which all tokens together reach. All lanes
// get it.
template <class Team>
DMC_DEVICE FoundToken find_token(const Vocabulary& of, const Bound& bound, SearchBins& bins) {
  if (Team::lane() == 0) bins.in_front = {};
  uint64_t prefix = 0;
  for (int shift = kTopDigit;; shift -= kDigitBits) {
    fill_bins<Team>(of, prefix, shift, bins);
    if (Team::lane() == 0) find_bin(bound, bins);
    Team::sync();
    const int bin = bins.found;
    const bool alone = shift == 0 || bins.count[bin] == 1;
    const FoundToken found{bins.id[bin], bins.in_front.mass + bins.sum(bin).mass};
    Team::sync();  // all have read it
    if (alone) return found;
    prefix = prefix << kDigitBits | static_cast<uint64_t>(bin);
  }
}

template <class Team>
DMC_DEVICE uint64_t total_mass(const Vocabulary& of, SearchBins& bins) {
  fill_bins<Team>(of, 0, kTopDigit, bins);
  TokenSum sum{};
  for (const TokenSum& group : bins.groups) sum = sum + group;
  Team::sync();
  return sum.mass;
}

// A share of a sum of masses as a bound that can be reached.
DMC_HOST_DEVICE Bound mass_bound(double share, uint64_t sum) {
  const auto bound = static_cast<uint64_t>(share);
  return {true, bound < 1 ? 1 : bound < sum ? bound : sum};
}

// The token for `position` of a text, the same for all lanes; -1 if a logit is not a number.
template <class Team>
DMC_DEVICE int32_t sample_token(const float* logits, int32_t size, const SamplingRow& options,
                                int64_t position, SearchBins& bins) {
  const int32_t best = likeliest_token<Team>(logits, size);
  if (best < 0 || options.temperature == 0.0f) return best;
  if (!(fabsf(logits[best]) < INFINITY)) return best;  // there are no odds
  const Vocabulary of{logits, size, logits[best], options.temperature};
  const bool all = options.top_k <= 0 || options.top_k >= size;
  uint64_t mass =
      all ? total_mass<Team>(of, bins)
          : find_token<Team>(of, {false, static_cast<uint64_t>(options.top_k)}, bins).mass;
  if (options.top_p < 1.0) {
    const double share = ceil(options.top_p * static_cast<double>(mass));
    mass = find_token<Team>(of, mass_bound(share, mass), bins).mass;
  }
  const double drawn = sampling_uniform(options.seed, position) * static_cast<double>(mass);
  return find_token<Team>(of, mass_bound(drawn + 1.0, mass), bins).id;
}

// Chooses the next token of row `row` of a step and leaves the row as the next step finds it.
template <class Team>
DMC_DEVICE void choose_token(const float* logits, int32_t vocab, const StepRows& step, int row,
                             SearchBins& bins) {
  if (step.rows[row] < 0) return;
  const SamplingRow& sampling = step.sampling[row];
  const int32_t token = sample_token<Team>(logits + int64_t{row} * vocab, vocab, sampling,
                                           int64_t{step.positions[row]} + 1, bins);
  Team::sync();  // all have read the row
  if (Team::lane() != 0) return;
  step.tokens[row] = token;
  if (token < 0 || sampling.ends(token)) {
    step.rows[row] = -1;
  } else {
    ++step.positions[row];
  }
}

}  // namespace dmc::kernels::cuda
