#include "block.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/rng.h"

namespace emulated {
namespace {

constexpr size_t kStackBytes = 128 * 1024;
constexpr int kMostThreads = 1024;  // of a block, on every GPU so far

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  bool done;
};

struct Thread {
  int index = 0;
  bool started = false, ended = false;
  const char* waits_at = nullptr;  // null: it can run
  jmp_buf here;
  std::vector<std::vector<Copy>> groups;  // of copies under way; the last is not committed yet
};

struct Warp {
  int arrived = 0;
  const char* where = nullptr;
  AllLanes brought{};
};

struct Stacks {
  std::byte* memory;
  Stacks() {
    void* const all = mmap(nullptr, kStackBytes * kMostThreads, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) throw std::bad_alloc();
    memory = static_cast<std::byte*>(all);
  }
  std::byte* of(int thread) const { return memory + static_cast<size_t>(thread) * kStackBytes; }
};

// The block that runs now. There is one at a time.
class Block {
 public:
  Block(const Launch& launch, Index index, const std::function<void()>& body, dmc::Rng& rng)
      : launch_(launch),
        index_(index),
        body_(body),
        rng_(rng),
        threads_(static_cast<size_t>(launch.threads)),
        warps_(static_cast<size_t>((launch.threads + kWarpLanes - 1) / kWarpLanes)),
        shared_(launch.shared_bytes / sizeof(Line) + 1) {
    std::memset(shared_.data(), 0xff, shared_.size() * sizeof(Line));
  }

  void run();
  void sync(const char* where);
  void meet(const char* where, void* mine, const std::function<void(const AllLanes&)>& work);
  void yield();

  Thread& thread() { return *now_; }
  Index index() const { return index_; }
  Index grid() const { return launch_.blocks; }
  std::byte* shared() { return shared_.front().bytes; }
  dmc::Rng& rng() { return rng_; }

 private:
  struct alignas(128) Line {
    std::byte bytes[128];
  };

  static void begin_thread();
  void resume(Thread& thread);
  void suspend();  // the thread that runs now
  void wait(const char* where);
  void wake(Thread& thread);
  void open_barrier();
  [[noreturn]] void fail(const std::string& what);

  const Launch& launch_;
  const Index index_;
  const std::function<void()>& body_;
  dmc::Rng& rng_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Line> shared_;
  std::vector<Thread*> ready_;
  Thread* now_ = nullptr;
  int alive_ = 0, at_barrier_ = 0;
  const char* barrier_ = nullptr;
  jmp_buf scheduler_;
  std::string error_;
};

Block* running = nullptr;

Block& block() {
  if (running == nullptr) throw std::logic_error("device code was called on the host");
  return *running;
}

// In a context of its own; leaves by a jump to the scheduler.
void Block::begin_thread() {
  Block& self = *running;
  self.body_();
  self.now_->ended = true;
  --self.alive_;
  self.open_barrier();
  _longjmp(self.scheduler_, 1);
}

void Block::resume(Thread& thread) {
  now_ = &thread;
  if (_setjmp(scheduler_) != 0) return;
  if (thread.started) _longjmp(thread.here, 1);
  thread.started = true;
  ucontext_t context;
  getcontext(&context);
  static const Stacks stacks;
  context.uc_stack = {stacks.of(thread.index), 0, kStackBytes};
  context.uc_link = nullptr;
  makecontext(&context, &Block::begin_thread, 0);
  setcontext(&context);
}

void Block::suspend() {
  if (_setjmp(now_->here) == 0) _longjmp(scheduler_, 1);
}

void Block::wait(const char* where) {
  now_->waits_at = where;
  suspend();
}

void Block::wake(Thread& thread) {
  thread.waits_at = nullptr;
  ready_.push_back(&thread);
}

void Block::yield() {
  ready_.push_back(now_);
  suspend();
}

// What is wrong cannot be thrown across contexts; the threads stay where they are.
void Block::fail(const std::string& what) {
  error_ = what;
  _longjmp(scheduler_, 1);
}

void Block::open_barrier() {
  if (at_barrier_ == 0 || at_barrier_ < alive_) return;
  for (Thread& thread : threads_) {
    if (thread.waits_at == barrier_) wake(thread);
  }
  at_barrier_ = 0;
}

void Block::sync(const char* where) {
  if (at_barrier_ > 0 && barrier_ != where) {
    fail("threads of a block wait at different barriers, " + std::string(barrier_) + " and " +
         where);
  }
  barrier_ = where;
  ++at_barrier_;
  Thread& self = *now_;
  self.waits_at = where;
  open_barrier();
  suspend();
}

void Block::meet(const char* where, void* mine, const std::function<void(const AllLanes&)>& work) {
  const auto lane = static_cast<size_t>(now_->index % kWarpLanes);
  const int first = now_->index - static_cast<int>(lane);
  Warp& warp = warps_[static_cast<size_t>(now_->index / kWarpLanes)];
  if (warp.arrived > 0 && std::strcmp(warp.where, where) != 0) {
    fail("lanes of a warp wait in different places, " + std::string(warp.where) + " and " + where);
  }
  warp.where = where;
  warp.brought[lane] = mine;
  if (++warp.arrived < kWarpLanes) return wait(where);
  warp.arrived = 0;
  work(warp.brought);
  for (int i = 0; i < kWarpLanes; ++i) {
    Thread& other = threads_[static_cast<size_t>(first + i)];
    if (&other != now_) wake(other);
  }
  yield();
}

void Block::run() {
  running = this;
  alive_ = launch_.threads;
  for (int i = 0; i < launch_.threads; ++i) {
    threads_[static_cast<size_t>(i)].index = i;
    ready_.push_back(&threads_[static_cast<size_t>(i)]);
  }
  while (!ready_.empty() && error_.empty()) {
    std::swap(ready_[rng_.below(ready_.size())], ready_.back());
    Thread& next = *ready_.back();
    ready_.pop_back();
    resume(next);
  }
  running = nullptr;
  if (error_.empty() && alive_ > 0) {
    const auto stuck = std::ranges::find_if(threads_, [](const Thread& t) { return !t.ended; });
    error_ = std::to_string(alive_) + " of " + std::to_string(launch_.threads) +
             " threads of a block wait in vain, one at " + stuck->waits_at;
  }
  if (!error_.empty()) throw std::logic_error("emulated kernel: " + error_);
}

uint64_t seed_of_next_launch() {
  static const uint64_t seed = [] {
    const char* const given = std::getenv("DMC_EMULATOR_SEED");
    return given == nullptr ? uint64_t{1} : std::strtoull(given, nullptr, 10);
  }();
  static uint64_t launches = 0;
  return dmc::random_bits(seed, ++launches, 0);
}

void finish(Copy& copy) {
  if (copy.done) return;
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, copy.bytes);
  } else {
    std::memcpy(copy.to, copy.from, copy.bytes);
  }
  copy.done = true;
}

}  // namespace

Index thread_index() { return {static_cast<unsigned>(block().thread().index), 0, 0}; }
Index block_index() { return block().index(); }
Index grid_size() { return block().grid(); }
int lane() { return block().thread().index % kWarpLanes; }
std::byte* shared_memory() { return block().shared(); }

void run_kernel(const Launch& launch, const std::function<void()>& thread) {
  dmc::Rng rng(seed_of_next_launch());
  std::vector<unsigned> order(size_t{launch.blocks.x} * launch.blocks.y * launch.blocks.z);
  std::iota(order.begin(), order.end(), 0u);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  for (const unsigned number : order) {
    const unsigned x = launch.blocks.x, y = launch.blocks.y;
    Block(launch, {number % x, number / x % y, number / x / y}, thread, rng).run();
  }
}

void sync_block(const char* where) { block().sync(where); }
void yield() { block().yield(); }
void meet(const char* where, void* mine, const std::function<void(const AllLanes&)>& work) {
  block().meet(where, mine, work);
}

void start_copy(void* to, const void* from, size_t bytes) {
  std::memset(to, 0xff, bytes);
  Copy copy{to, from, bytes, false};
  if (block().rng().below(2) == 0) finish(copy);
  auto& groups = block().thread().groups;
  if (groups.empty()) groups.emplace_back();
  groups.back().push_back(copy);
}

void commit_copies() {
  auto& groups = block().thread().groups;
  if (groups.empty()) groups.emplace_back();
  groups.emplace_back();
}

void wait_copies(int pending) {
  auto& groups = block().thread().groups;
  while (static_cast<int>(groups.size()) > pending + 1) {
    for (Copy& copy : groups.front()) finish(copy);
    groups.erase(groups.begin());
  }
}

}  // namespace emulated
