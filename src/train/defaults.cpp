#include "train/defaults.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/human.h"

namespace dmc::train {
namespace {

constexpr int64_t kLongestUsual = 2048;
constexpr double kTokensOfStep = 8192;
// Repeating a text more often is worth little (arXiv 2305.16264).
constexpr double kManyEpochs = 4.0;

// Learning rates at kTokensOfStep for a model of kReferenceParameters: careful starting points, not
// tuned. A larger model takes a smaller one, and so does a smaller step, whose gradient has more
// noise.
constexpr double kFreshRate = 1e-3, kTrainedRate = 1e-4, kAdapterRate = 1e-3;
constexpr double kReferenceParameters = 3e6, kSizeExponent = 0.2;
constexpr double kFinalShare = 0.1;

// How far a decision's logit can move in a step. An Adam step moves each weight by about the
// learning rate, so a sum over `hidden` channels by at most that times `hidden`, and the decision
// scale multiplies it. The logits must come from the offset, 3, to both sides of 0 well within the
// ramp, whatever the model's size and learning rate.
constexpr double kLogitStep = 0.75, kUsualRamp = 140.0;

std::string scientific(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", x);
  return text;
}

// Two digits: a rate that is shown is the one that is used, and may be given again.
double two_digits(double x) {
  const double unit = std::pow(10.0, std::floor(std::log10(x)) - 1.0);
  return std::round(x / unit) * unit;
}

double usual_rate(const RunFacts& facts, double tokens_of_step) {
  const double rate = facts.fresh ? kFreshRate : facts.adapter_alone ? kAdapterRate : kTrainedRate;
  const double size =
      std::pow(kReferenceParameters / std::max(facts.parameters, 1.0), kSizeExponent);
  const double noise = std::sqrt(std::min(tokens_of_step / kTokensOfStep, 4.0));
  return two_digits(rate * std::clamp(size, 0.1, 2.0) * noise);
}

double usual_scale(const RunFacts& facts, double learning_rate) {
  const double hurry = std::max(1.0, kUsualRamp / static_cast<double>(facts.ramp_steps));
  return two_digits(kLogitStep * hurry /
                    (learning_rate * static_cast<double>(std::max<int64_t>(facts.hidden, 1))));
}

std::string rate_reason(const RunFacts& facts) {
  if (facts.fresh) return "as a new model learns";
  if (facts.adapter_alone) return "only the adapter learns, the model stays as it is";
  return "small, because the model is trained already";
}

}  // namespace

Defaults choose_defaults(const RunFacts& facts, const Given& given) {
  Defaults run;
  run.length = given.length.value_or(std::min(kLongestUsual, facts.context));
  if (!given.length) {
    run.reasons.push_back("length " + std::to_string(run.length) + ": " +
                          (run.length == facts.context
                               ? "the model's context"
                               : "as usual; the model's context is longer"));
  }
  const double rows = std::round(kTokensOfStep / static_cast<double>(run.length));
  const int64_t wanted = std::max<int64_t>(static_cast<int64_t>(rows), 1);
  run.batch = given.batch.value_or((wanted + facts.shares - 1) / facts.shares * facts.shares);
  const auto step = static_cast<double>(run.batch * run.length);
  if (!given.batch) {
    run.reasons.push_back("batch " + std::to_string(run.batch) + ": with it a step takes " +
                          human_count(step) + " tokens");
  }
  run.learning_rate = given.learning_rate.value_or(usual_rate(facts, step));
  if (!given.learning_rate) {
    run.reasons.push_back("learning rate " + scientific(run.learning_rate) + ": " +
                          rate_reason(facts));
  }
  run.decision_scale = given.decision_scale.value_or(0.0);
  if (facts.ramp_steps > 0 && !given.decision_scale) {
    run.decision_scale = usual_scale(facts, run.learning_rate);
    run.reasons.push_back("decision scale " + human_count(run.decision_scale) +
                          ": decisions learn in " + std::to_string(facts.ramp_steps) +
                          " steps what the ratio asks for, at this learning rate");
  }
  run.final_learning_rate = given.final_learning_rate.value_or(kFinalShare * run.learning_rate);
  return run;
}

double epochs(const RunFacts& facts, int64_t steps, const Defaults& run) {
  return static_cast<double>(steps * run.batch * run.length) / std::max(facts.text_tokens, 1.0);
}

std::string data_warning(const RunFacts& facts, int64_t steps, const Defaults& run) {
  const auto step = static_cast<double>(run.batch * run.length);
  if (facts.text_tokens < step) {
    return "the text has about " + human_count(facts.text_tokens) +
           " tokens, less than one step of " + human_count(step) + " takes; give more --data";
  }
  const double times = epochs(facts, steps, run);
  if (times <= kManyEpochs) return "";
  return "the text is read " + fixed(times, 1) +
         " times, and the model may learn it by heart; give more --data or fewer --steps";
}

}  // namespace dmc::train
