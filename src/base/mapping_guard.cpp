#include "base/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace dmc {
namespace {

// Read by a signal handler, so neither locked nor moved. `begin` is set last and cleared first.
struct Mapping {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<bool> cut{false}, taken{false};
};
constexpr size_t kMostMappings = 2048;
Mapping mappings[kMostMappings];
std::atomic<size_t> in_use{0};  // of them, from the first on

static_assert(std::atomic<uintptr_t>::is_always_lock_free);

Mapping* mapping_of(uintptr_t address) {
  const size_t count = in_use.load();
  for (size_t i = 0; i < count; ++i) {
    Mapping& mapping = mappings[i];
    const uintptr_t begin = mapping.begin.load();
    if (begin != 0 && address >= begin && address < mapping.end.load()) return &mapping;
  }
  return nullptr;
}

// All that lies behind the address is lost as well. mmap is a plain system call, fit for a handler.
void fill_with_zeros(int signal_number, siginfo_t* info, void*) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  Mapping* const mapping = info->si_code == BUS_ADRERR ? mapping_of(address) : nullptr;
  if (mapping != nullptr) {
    const uintptr_t page = address & ~(static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE)) - 1);
    void* const zeros = ::mmap(reinterpret_cast<void*>(page), mapping->end.load() - page, PROT_READ,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mapping->cut.store(true);
    if (zeros != MAP_FAILED) return;
  }
  ::signal(signal_number, SIG_DFL);  // none of ours: the same read ends the program, as ever
}

bool install_handler() {
  struct sigaction action {};
  action.sa_sigaction = fill_with_zeros;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  return ::sigaction(SIGBUS, &action, nullptr) == 0;
}

}  // namespace

void watch_mapping(void* data, size_t size) {
  static const bool installed = install_handler();
  if (!installed) return;
  for (size_t i = 0; i < kMostMappings; ++i) {
    if (mappings[i].taken.exchange(true)) continue;
    size_t count = in_use.load();
    while (count < i + 1 && !in_use.compare_exchange_weak(count, i + 1)) {
    }
    mappings[i].cut = false;
    mappings[i].end = reinterpret_cast<uintptr_t>(data) + size;
    mappings[i].begin = reinterpret_cast<uintptr_t>(data);
    return;
  }
}

void forget_mapping(void* data) {
  if (Mapping* const mapping = mapping_of(reinterpret_cast<uintptr_t>(data))) {
    mapping->begin = 0;
    mapping->taken = false;
  }
}

bool mapping_was_cut(void* data) {
  const Mapping* const mapping = mapping_of(reinterpret_cast<uintptr_t>(data));
  return mapping != nullptr && mapping->cut.load();
}

}  // namespace dmc
