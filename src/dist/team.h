// How a command becomes one process of a run of several, or stays alone.
#pragma once

#include <memory>

#include "dist/group.h"
#include "dist/place.h"
#include "dist/processes.h"

namespace dmc::dist {

class Team {
 public:
  // With `processes` above 0 as many on this machine; else those that a launcher started, if the
  // environment tells of one; else this process alone. Error(kInvalidArgument) naming the flag or
  // the variable that is wrong. `warn`: as Processes has it.
  explicit Team(int processes, Warn warn = {});

  const Place& place() const { return place_; }
  // Starts the other processes, if they are not yet, and meets them: with NCCL if `device` is a
  // GPU, else with Gloo. Error(kInvalidArgument) if they do not come; an Error of their own if they
  // fail.
  void meet(const at::Device& device);
  Group& group() { return *group_; }

  // Calls `work`, which uses the group, and waits for the processes that this one started. Should
  // it fail because one of them did, the Error is that one's own.
  void run(const std::function<void()>& work);

 private:
  void explained(const std::function<void()>& work);

  Warn warn_;
  Place place_;
  bool starts_others_ = false;
  std::unique_ptr<Processes> others_;  // null: started by a launcher, or none
  std::unique_ptr<Group> own_group_;   // null: alone
  Group* group_ = &alone();
};

}  // namespace dmc::dist
