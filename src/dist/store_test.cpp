#include "dist/store.h"

#include <gtest/gtest.h>

#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "base/error.h"
#include "dist/heartbeat.h"
#include "dist/thread_groups.h"

namespace dmc::dist {
namespace {

using std::chrono::milliseconds;

Place place_of(int rank, int size) {
  return {.rank = rank,
          .size = size,
          .local_size = size,
          .host = "127.0.0.1",
          .serves_store = rank == 0};
}

TEST(Store, IsServedAtAFreePortAndFoundThere) {
  Place first = place_of(0, 2), second = place_of(1, 2);
  const Store served = open_store(first);
  EXPECT_NE(first.port, 0);
  second.port = first.port;
  const Store found = open_store(second);
  served->set("word", std::vector<uint8_t>{42});
  EXPECT_EQ(found->get("word"), std::vector<uint8_t>{42});
}

void expect_refused(Place place, const char* words) {
  try {
    open_store(place, milliseconds(500));
    FAIL() << "a store was opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
  }
}

TEST(Store, ThatNobodyServesIsSaidInASentence) {
  Place gone = place_of(0, 2), second = place_of(1, 2);
  open_store(gone);  // a port that was free a moment ago
  second.port = gone.port;
  expect_refused(second, "MASTER_ADDR");
}

TEST(Store, CannotBeServedWhereAnotherIs) {
  Place first = place_of(0, 2);
  const Store served = open_store(first);
  expect_refused(first, "MASTER_PORT");
}

TEST(WaitForAll, EndsWhenTheLastHasCome) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  run_as_threads(3, [&](Group& group) {
    wait_for_all(*store, place_of(group.rank(), 3), {});
    EXPECT_EQ(store->add("here", 0), 3);
  });
}

TEST(WaitForAll, SaysHowManyCame) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  try {
    wait_for_all(*store, place_of(0, 3), {}, milliseconds(50));
    FAIL() << "two never came";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("only 1 of 3"), std::string::npos) << error.what();
  }
}

TEST(WaitForAll, MayBeGivenUp) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto give_up = [] { throw data_error("a process ended"); };
  EXPECT_THROW(wait_for_all(*store, place_of(0, 3), give_up), Error);
}

TEST(Heartbeat, TellsAllTheSameRankThatIsGone) {
  Place first = place_of(0, 3);
  Store served = open_store(first);
  run_as_threads(3, [&](Group& group) {
    Place place = place_of(group.rank(), 3);
    place.port = first.port;
    Heartbeat heartbeat(place.serves_store ? served : open_store(place), place, milliseconds(250));
    group.sum(at::zeros({1}));
    if (group.rank() == 1) return;
    const PeerLost lost = heartbeat.peer_lost("connection closed");
    EXPECT_EQ(lost.ranks(), std::vector<int>{1});
    EXPECT_NE(std::string(lost.what()).find("process 1 of 3"), std::string::npos) << lost.what();
  });
}

TEST(Heartbeat, AccusesNobodyWhileAllLive) {
  const auto store = c10::make_intrusive<c10d::HashStore>();
  Place place = place_of(0, 1);
  Heartbeat heartbeat(store, place, milliseconds(20));
  const PeerLost lost = heartbeat.peer_lost("timed out\nat some place");
  EXPECT_TRUE(lost.ranks().empty());
  EXPECT_NE(std::string(lost.what()).find("(timed out)"), std::string::npos) << lost.what();
}

}  // namespace
}  // namespace dmc::dist
