#include "dist/team.h"

#include <chrono>
#include <cstdlib>
#include <thread>

#include "dist/gloo_group.h"
#include "dist/nccl_group.h"
#include "dist/store.h"

namespace dmc::dist {
namespace {

constexpr auto kToBeReaped = std::chrono::seconds(5);

Place of_launcher_or_alone(int processes) {
  const std::optional<Place> place = place_from([](const char* name) { return getenv(name); });
  if (!place) return {};
  if (processes > 0 && processes != place->size) {
    throw invalid_argument("processes", std::to_string(processes) +
                                            ", but WORLD_SIZE in the "
                                            "environment says that a launcher has started " +
                                            std::to_string(place->size) + "; leave the flag out");
  }
  return *place;
}

Place first_of(int processes) {
  return {.size = processes,
          .local_size = processes,
          .host = "127.0.0.1",
          .serves_store = true,
          .attempt = "0"};
}

}  // namespace

Team::Team(int processes, Warn warn)
    : warn_(std::move(warn)), place_(of_launcher_or_alone(processes)) {
  starts_others_ = processes > 1 && place_.size == 1;
  if (starts_others_) place_ = first_of(processes);
}

void Team::meet(const at::Device& device) {
  if (place_.size == 1) return;
  const Store store = open_store(place_);
  if (starts_others_) others_ = std::make_unique<Processes>(place_, warn_);
  wait_for_all(*store, place_, [&] {
    if (others_) others_->check();
  });
  explained([&] {
    own_group_ = device.is_cpu() ? gloo_group(store, place_) : nccl_group(store, place_, device);
  });
  group_ = own_group_.get();
}

void Team::run(const std::function<void()>& work) {
  explained(work);
  if (others_) others_->wait();
}

void Team::explained(const std::function<void()>& work) {
  try {
    work();
  } catch (const PeerLost& lost) {
    if (!others_) throw;
    // Its connections close a moment before the system tells how it ended.
    const auto deadline = std::chrono::steady_clock::now() + kToBeReaped;
    do {
      for (const int rank : lost.ranks()) {
        if (const std::optional<Error> error = others_->failure(rank)) throw *error;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    } while (std::chrono::steady_clock::now() < deadline);
    throw;
  }
}

}  // namespace dmc::dist
