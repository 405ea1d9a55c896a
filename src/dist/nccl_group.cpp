#include "dist/nccl_group.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>

#include <thread>

#include "base/stopwatch.h"
#include "dist/nccl_library.h"

namespace dmc::dist {
namespace {

// LibTorch's stream too, as long as nobody asks it for another one, which we never do.
constexpr void* kDefaultStream = nullptr;

int type_of(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return nccl_abi::kFloat32;
    case at::kDouble:
      return nccl_abi::kFloat64;
    default:
      DMC_CHECK(x.scalar_type() == at::kLong);
      return nccl_abi::kInt64;
  }
}

class NcclGroup : public Group {
 public:
  NcclGroup(const Store& store, const Place& place, const at::Device& device, const Timing& timing)
      : rank_(place.rank),
        size_(place.size),
        device_(device),
        timing_(timing),
        heartbeat_(store, place, timing.heartbeat) {
    const nccl_abi::UniqueId id = shared_id(*store);
    const c10::DeviceGuard on_its_device(device_);
    check(nccl().init_rank(&comm_, size_, id, rank_));
  }

  ~NcclGroup() override {
    if (comm_ != nullptr) nccl().destroy(comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void sum(const at::Tensor& x) override {
    exchange(x, [&](void* data, size_t count, int type) {
      return nccl().all_reduce(data, data, count, type, nccl_abi::kSum, comm_, kDefaultStream);
    });
  }
  void sum_to(const at::Tensor& x, int to) override {
    exchange(x, [&](void* data, size_t count, int type) {
      return nccl().reduce(data, data, count, type, nccl_abi::kSum, to, comm_, kDefaultStream);
    });
  }
  void broadcast(const at::Tensor& x, int from) override {
    exchange(x, [&](void* data, size_t count, int type) {
      return nccl().broadcast(data, data, count, type, from, comm_, kDefaultStream);
    });
  }

  // An exchange with a process that is gone never ends, and nor would LibTorch's waiting for the
  // device: so this waits instead, and looks around meanwhile.
  void settle() override {
    const auto ended = end_of_work();
    const Stopwatch watch;
    double next_look = seconds(timing_.heartbeat);
    while (!ended()) {
      check_async();
      if (watch.seconds() > next_look) {
        if (heartbeat_.misses_any()) give_up("a process stopped answering");
        if (watch.seconds() > seconds(timing_.exchange)) give_up("an exchange took too long");
        next_look += seconds(timing_.heartbeat);
      }
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    check_async();
  }

 private:
  static double seconds(std::chrono::milliseconds time) {
    return std::chrono::duration<double>(time).count();
  }

  // Rank 0's, which the others learn through the store.
  nccl_abi::UniqueId shared_id(c10d::Store& store) {
    nccl_abi::UniqueId id{};
    if (rank_ == 0) {
      check(nccl().get_unique_id(&id));
      store.set("nccl", std::vector<uint8_t>(id.bytes.begin(), id.bytes.end()));
    } else {
      const std::vector<uint8_t> told = store.get("nccl");
      DMC_CHECK(told.size() == id.bytes.size());
      std::ranges::copy(told, id.bytes.begin());
    }
    return id;
  }

  template <class Call>
  void exchange(const at::Tensor& x, const Call& call) {
    DMC_CHECK(comm_ != nullptr && x.device() == device_ && x.is_contiguous());
    const c10::DeviceGuard on_its_device(device_);
    check(call(x.data_ptr(), static_cast<size_t>(x.numel()), type_of(x)));
  }

  // Whether the device has done all it was given so far. The CPU, which tests have in a GPU's
  // place, always has.
  std::function<bool()> end_of_work() const {
    if (device_.is_cpu()) return [] { return true; };
    const c10::impl::VirtualGuardImpl guard(device_.type());
    const auto event = std::make_shared<c10::Event>(device_.type());
    event->record(guard.getStream(device_));
    return [event] { return event->query(); };
  }

  void check(int result) {
    if (result != nccl_abi::kSuccess && result != nccl_abi::kInProgress) {
      give_up(std::string("NCCL: ") + nccl().error_string(result));
    }
  }
  void check_async() {
    int error = nccl_abi::kSuccess;
    check(nccl().get_async_error(comm_, &error));
    check(error);
  }
  [[noreturn]] void give_up(const std::string& what) {
    if (comm_ != nullptr) nccl().abort(comm_);  // lets the device go on
    comm_ = nullptr;
    throw heartbeat_.peer_lost(what);
  }

  const int rank_, size_;
  const at::Device device_;
  const Timing timing_;
  Heartbeat heartbeat_;
  void* comm_ = nullptr;
};

}  // namespace

std::unique_ptr<Group> nccl_group(const Store& store, const Place& place, const at::Device& device,
                                  const Timing& timing) {
  return std::make_unique<NcclGroup>(store, place, device, timing);
}

}  // namespace dmc::dist
