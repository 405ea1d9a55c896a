#include "eval/sweep/plan.h"

#include <algorithm>

#include "base/error.h"
#include "base/join.h"
#include "policy/policy.h"

namespace dmc::eval {
namespace {

const policy::Policy& named(const std::string& name) {
  const policy::Policy* policy = policy::find_policy(name);
  if (policy != nullptr) return *policy;
  throw invalid_argument("policies", "\"" + name + "\" is not one of " +
                                         join(policy::policies(), ", ", &policy::Policy::name));
}

bool worth_comparing(const policy::Policy& policy, const SweepModel& model) {
  if (!model.method.empty()) return policy.name == model.method;
  return policy.name == "dense" || policy.least_budget > 0;
}

std::vector<const policy::Policy*> policies_for(const SweepAxes& axes, const SweepModel& model) {
  std::vector<const policy::Policy*> chosen;
  for (const std::string& name : axes.policies) {
    const policy::Policy& policy = named(name);
    if (!policy.needs_dmc_config || model.method == name) chosen.push_back(&policy);
  }
  if (!axes.policies.empty()) return chosen;
  for (const policy::Policy& policy : policy::policies()) {
    if (worth_comparing(policy, model)) chosen.push_back(&policy);
  }
  return chosen;
}

std::vector<double> ratios_for(const SweepAxes& axes, const policy::Policy& policy) {
  if (policy.name == "dense") return {0.0};
  std::vector<double> ratios;
  if (policy.needs_dmc_config) ratios.push_back(0.0);
  ratios.insert(ratios.end(), axes.crs.begin(), axes.crs.end());
  return ratios;
}

// Scored text has no end of a prompt.
bool means_something(const policy::Policy& policy, const std::string& task) {
  if (task == kSpeedTask || policy.keep_of_prompt == nullptr) return true;
  if (task == kTextTask) return false;
  const Task& known = find_task(task);
  return !known.on_text || known.has_prompts;
}

void add_tasks(const SweepAxes& axes, const policy::Policy& policy, SweepCell cell,
               std::vector<SweepCell>* cells) {
  for (const std::string& task : axes.tasks) {
    if (!means_something(policy, task)) continue;
    cell.task = task;
    cell.size = axes.size_of(task);
    cells->push_back(cell);
  }
}

}  // namespace

std::vector<SweepCell> plan_sweep(const SweepAxes& axes) {
  std::vector<SweepCell> cells;
  for (const SweepModel& model : axes.models) {
    for (const std::string& kv : axes.kvs) {
      for (const policy::Policy* policy : policies_for(axes, model)) {
        for (double cr : ratios_for(axes, *policy)) {
          add_tasks(axes, *policy, {model.name, std::string(policy->name), cr, kv, "", ""}, &cells);
        }
      }
    }
  }
  if (cells.empty()) {
    throw invalid_argument("policies",
                           "the sweep has nothing to measure: none of them goes with a model and "
                           "a task that were given");
  }
  return cells;
}

}  // namespace dmc::eval
