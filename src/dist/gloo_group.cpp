// The one file that sees Gloo. LibTorch has it compiled in but does not bring its headers.
#ifndef USE_C10D_GLOO  // set by LibTorch's package, where that is used; its header is empty without
#define USE_C10D_GLOO
#endif
#include "dist/gloo_group.h"

#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <csignal>

namespace dmc::dist {
namespace {

using c10d::ProcessGroupGloo;

// To come together, for processes that are known to be up.
constexpr auto kConnecting = std::chrono::minutes(1);

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

c10::intrusive_ptr<ProcessGroupGloo::Options> options_for(const Place& place) {
  // By GLOO_SOCKET_IFNAME, or the interface of this machine's name.
  if (!is_loopback(place.host)) return ProcessGroupGloo::Options::create_default(kConnecting);
  // Processes of one machine meet there whatever its networks are like.
  auto options = ProcessGroupGloo::Options::create(kConnecting);
  options->devices.push_back(ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
  return options;
}

// Gloo may write to a peer that is gone; an error is wanted then, not this process's end.
void survive_broken_pipes() { std::signal(SIGPIPE, SIG_IGN); }

class GlooGroup : public Group {
 public:
  GlooGroup(const Store& store, const Place& place, const Timing& timing)
      : rank_(place.rank), size_(place.size), heartbeat_(store, place, timing.heartbeat) {
    survive_broken_pipes();
    guarded([&] {
      gloo_ = c10::make_intrusive<ProcessGroupGloo>(store, rank_, size_, options_for(place));
      gloo_->setTimeout(timing.exchange);
    });
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void sum(const at::Tensor& x) override {
    std::vector<at::Tensor> tensors = {x};
    guarded([&] { gloo_->allreduce(tensors)->wait(); });
  }
  void sum_to(const at::Tensor& x, int to) override {
    std::vector<at::Tensor> tensors = {x};
    c10d::ReduceOptions options;
    options.rootRank = to;
    guarded([&] { gloo_->reduce(tensors, options)->wait(); });
  }
  void broadcast(const at::Tensor& x, int from) override {
    std::vector<at::Tensor> tensors = {x};
    c10d::BroadcastOptions options;
    options.rootRank = from;
    guarded([&] { gloo_->broadcast(tensors, options)->wait(); });
  }

 private:
  template <class Exchange>
  void guarded(const Exchange& exchange) {
    try {
      exchange();
    } catch (const std::exception& error) {  // LibTorch's or Gloo's own
      gloo_.reset();  // closes connections, so that those who wait for this rank learn it, too
      throw heartbeat_.peer_lost(error.what());
    }
  }

  const int rank_, size_;
  Heartbeat heartbeat_;
  c10::intrusive_ptr<ProcessGroupGloo> gloo_;
};

}  // namespace

std::unique_ptr<Group> gloo_group(const Store& store, const Place& place, const Timing& timing) {
  return std::make_unique<GlooGroup>(store, place, timing);
}

}  // namespace dmc::dist
