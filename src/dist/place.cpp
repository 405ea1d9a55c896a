#include "dist/place.h"

#include <charconv>
#include <cstring>

#include "base/error.h"

namespace dmc::dist {
namespace {

constexpr int kMostProcesses = 1 << 16;

std::string required(const Environment& environment, const char* name) {
  const char* const text = environment(name);
  if (text != nullptr && *text != '\0') return text;
  throw invalid_argument(
      std::string(name) +
      ": is not set in the environment, but RANK or WORLD_SIZE is; a launcher such as "
      "torchrun sets them all, and without any of them dmc trains in one process");
}

// A whole number in [low, high].
int number(const char* name, const std::string& text, int low, int high, const char* what) {
  int result = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, result);
  if (error != std::errc() || stopped != end || result < low || result > high) {
    throw invalid_argument(std::string(name) + ": \"" + text + "\" in the environment is not " +
                           what + ", a whole number from " + std::to_string(low) + " to " +
                           std::to_string(high));
  }
  return result;
}

int number_or(const Environment& environment, const char* name, int otherwise, int low, int high,
              const char* what) {
  const char* const text = environment(name);
  return text == nullptr ? otherwise : number(name, text, low, high, what);
}

bool is_set_to(const Environment& environment, const char* name, const char* value) {
  const char* const text = environment(name);
  return text != nullptr && std::strcmp(text, value) == 0;
}

}  // namespace

std::optional<Place> place_from(const Environment& environment) {
  if (environment("RANK") == nullptr && environment("WORLD_SIZE") == nullptr) return std::nullopt;
  Place place;
  place.size = number("WORLD_SIZE", required(environment, "WORLD_SIZE"), 1, kMostProcesses,
                      "a number of processes");
  place.rank = number("RANK", required(environment, "RANK"), 0, place.size - 1,
                      "the rank of one of WORLD_SIZE processes");
  place.local_size = number_or(environment, "LOCAL_WORLD_SIZE", place.size, 1, place.size,
                               "a number of this machine's processes");
  place.local_rank = number_or(environment, "LOCAL_RANK", place.rank % place.local_size, 0,
                               place.local_size - 1, "the rank of one of this machine's processes");
  place.host = required(environment, "MASTER_ADDR");
  place.port = static_cast<uint16_t>(
      number("MASTER_PORT", required(environment, "MASTER_PORT"), 1, 65535, "a port"));
  // torchrun has a store already, at the same address.
  place.serves_store =
      place.rank == 0 && !is_set_to(environment, "TORCHELASTIC_USE_AGENT_STORE", "True");
  const char* const restarts = environment("TORCHELASTIC_RESTART_COUNT");
  place.attempt = restarts != nullptr ? restarts : "0";
  return place;
}

std::string named(const std::string& ranks, int size) {
  return "process " + ranks + " of " + std::to_string(size) + " (counted from 0)";
}

}  // namespace dmc::dist
