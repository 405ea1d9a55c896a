// Where this process stands among those of its run.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace dmc::dist {

struct Place {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // the same among the processes of this machine
  std::string host;                    // of the store through which they find one another
  uint16_t port = 0;
  bool serves_store = false;  // it lives in this process
  std::string attempt;        // names the keys of this start, should a launcher start anew
};

// getenv or, in tests, something like it.
using Environment = std::function<const char*(const char* name)>;

// What torchrun and launchers like it say in RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE,
// MASTER_ADDR and MASTER_PORT; nothing if neither RANK nor WORLD_SIZE is set.
// Error(kInvalidArgument) naming the variable that is missing or wrong.
std::optional<Place> place_from(const Environment& environment);

// What messages call one process of a run, or several: "process 2 of 4 (counted from 0)".
std::string named(const std::string& ranks, int size);

}  // namespace dmc::dist
