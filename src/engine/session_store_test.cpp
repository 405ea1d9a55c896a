#include "engine/session_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/temp_folder.h"
#include "engine/fake_runner.h"
#include "engine/scheduler.h"

namespace dmc::engine {
namespace {

namespace fs = std::filesystem;

std::vector<int32_t> tokens_of(int count, int seed) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) {
    tokens.push_back(
        static_cast<int32_t>(mix64(static_cast<uint64_t>(1000 * seed + i)) % FakeRunner::kVocab));
  }
  return tokens;
}

std::vector<int32_t> longer(std::vector<int32_t> tokens) {
  tokens.push_back(1);
  return tokens;
}

size_t files_in(const fs::path& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), {}));
}

fs::path only_file(const fs::path& folder) { return fs::directory_iterator(folder)->path(); }

void alter(const fs::path& path, size_t at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(at));
  const char byte = static_cast<char>(file.get() ^ 0x40);
  file.seekp(static_cast<std::streamoff>(at));
  file.put(byte);
}

class Sessions : public testing::Test {
 protected:
  Sessions() { ::chmod(folder.path().c_str(), 0700); }
  SessionOptions options(uint64_t fingerprint = 5, uint64_t most = 1 << 20) const {
    return {folder.path(), most, fingerprint, 1000};
  }
  // As a server that ends and starts again.
  void save(const Session& session, const SessionOptions& with) {
    SessionStore(with).save(session);
  }
  TempFolder folder;
};

TEST_F(Sessions, TheLongestThatBeginsAPromptIsFound) {
  const auto all = tokens_of(40, 1);
  for (size_t count : {10u, 20u, 30u}) {
    save({{all.begin(), all.begin() + static_cast<long>(count)}, std::to_string(count)}, options());
  }
  SessionStore store(options());
  EXPECT_EQ(store.counts().files, 3);
  EXPECT_EQ(store.find(all), 30);
  EXPECT_EQ(store.find(std::span(all).first(30)), 20) << "a token must be left";
  EXPECT_EQ(store.find(tokens_of(40, 2)), 0);
  const auto found = store.load(std::span(all).first(25));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->session.state, "20");
  EXPECT_EQ(std::ssize(found->session.tokens), 20);
  EXPECT_TRUE(store.contains(std::span(all).first(10)));
  EXPECT_FALSE(store.contains(std::span(all).first(11)));
}

TEST_F(Sessions, ThoseUsedLongestAgoGo) {
  const std::string state(1000, 's');
  const uint64_t one = session_bytes({tokens_of(10, 0), state}, 5).size();
  const auto with = options(5, 3 * one);
  for (int i = 0; i < 3; ++i) save({tokens_of(10, i), state}, with);
  EXPECT_TRUE(SessionStore(with).load(longer(tokens_of(10, 0))));
  save({tokens_of(10, 3), state}, with);
  SessionStore store(with);
  EXPECT_EQ(store.counts().files, 3);
  EXPECT_LE(store.counts().bytes, static_cast<int64_t>(3 * one));
  EXPECT_TRUE(store.contains(tokens_of(10, 0)));
  EXPECT_FALSE(store.contains(tokens_of(10, 1)));
  EXPECT_EQ(files_in(folder.path()), 3u);
  save({tokens_of(10, 4), std::string(4 * one, 's')}, with);
  EXPECT_EQ(files_in(folder.path()), 3u) << "what is larger than all room pushes nobody out";
}

TEST_F(Sessions, AFileIsNotBelieved) {
  const Session session{tokens_of(10, 1), std::string(500, 's')};
  const std::string good = session_bytes(session, 5);
  EXPECT_EQ(read_session(good, 5, 1000).state, session.state);
  EXPECT_THROW(read_session(good, 6, 1000), Error) << "another model";
  EXPECT_THROW(read_session(good, 5, 9), Error) << "a smaller context";
  EXPECT_THROW(read_session(good + "x", 5, 1000), Error);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_THROW(read_session(bad, 5, 1000), Error) << "byte " << i;
    EXPECT_THROW(read_session(std::string_view(good).substr(0, i), 5, 1000), Error) << i;
  }
}

TEST_F(Sessions, ADamagedStateIsRemovedWhenItIsWanted) {
  const Session session{tokens_of(10, 1), std::string(500, 's')};
  save(session, options());
  alter(only_file(folder.path()), 400);
  SessionStore store(options());
  EXPECT_EQ(store.find(longer(session.tokens)), 10);
  EXPECT_FALSE(store.load(longer(session.tokens)));
  EXPECT_EQ(store.counts().damaged, 1);
  EXPECT_EQ(store.find(longer(session.tokens)), 0);
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST_F(Sessions, OtherModelsSessionsAreNotFoundButCounted) {
  save({tokens_of(10, 1), "a"}, options(5));
  SessionStore store(options(6));
  EXPECT_EQ(store.find(longer(tokens_of(10, 1))), 0);
  EXPECT_EQ(store.counts().files, 1);
}

TEST_F(Sessions, WhatIsNoSessionStaysAndIsLeftOut) {
  std::ofstream(folder.path() / "notes.txt") << "mine";
  std::ofstream(folder.path() / "bad.session") << "no session";
  std::ofstream(folder.path() / "empty.session");
  fs::create_symlink("/etc/passwd", folder.path() / "link.session");
  fs::create_directory(folder.path() / "folder.session");
  SessionStore store(options());
  EXPECT_EQ(store.counts().files, 0);
  store.save({tokens_of(10, 1), "a"});
  EXPECT_EQ(files_in(folder.path()) >= 5, true);
}

TEST_F(Sessions, AFolderThatOthersHaveRightsOnIsRefused) {
  ::chmod(folder.path().c_str(), 0750);
  try {
    const SessionStore store(options());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.field(), "session_dir");
  }
}

class Listener : public RequestListener {
 public:
  void admitted(int64_t found) override { cached = found; }
  bool token(int64_t, const WrittenToken& token) override {
    tokens.push_back(token.token);
    return false;
  }
  void ended(int64_t, const Ending&) override { ended_ = true; }
  void failed(const Error& error) override { FAIL() << error.what(); }
  std::vector<int32_t> tokens;
  int64_t cached = 0;
  bool ended_ = false;
};

constexpr int64_t kChunk = 8;

// A server's life: what it writes behind `prompt`.
std::shared_ptr<Listener> live(const std::vector<int32_t>& prompt, SessionStore* sessions,
                               bool cuts_matter = false, int64_t pages = 1000) {
  FakeRunner runner(pages);
  runner.prompts_end = false;
  runner.cuts_matter = cuts_matter;
  SchedulerOptions with;
  with.chunk_tokens = kChunk, with.snapshots = 4, with.sessions = sessions;
  with.chunks_matter = cuts_matter;
  Scheduler scheduler(runner, with);
  auto heard = std::make_shared<Listener>();
  RequestOptions options;
  options.max_tokens = 12;
  scheduler.submit(std::make_shared<Request>(prompt, options, heard));
  while (scheduler.step()) {
  }
  EXPECT_TRUE(heard->ended_);
  return heard;
}

TEST_F(Sessions, AConversationGoesOnAfterARestartAsWithoutOne) {
  for (const bool cuts_matter : {false, true}) {
    std::vector<int32_t> prompt = tokens_of(21, 3);
    const uint64_t kind = cuts_matter ? 2 : 1;
    int64_t turns_cached = 0;
    for (int turn = 0; turn < 4; ++turn) {
      const auto alone = live(prompt, nullptr, cuts_matter);
      SessionStore store(options(kind));
      const auto heard = live(prompt, &store, cuts_matter);
      EXPECT_EQ(heard->tokens, alone->tokens) << "turn " << turn;
      EXPECT_EQ(alone->cached, 0);
      EXPECT_EQ(heard->cached > 0, turn > 0);
      turns_cached += heard->cached;
      prompt.insert(prompt.end(), heard->tokens.begin(), heard->tokens.end());
      prompt.push_back(7);
    }
    EXPECT_GE(turns_cached, 80);
  }
}

TEST_F(Sessions, ASessionThatDoesNotFitIsComputed) {
  const std::vector<int32_t> prompt = tokens_of(21, 3);
  std::vector<int32_t> tokens(prompt.begin(), prompt.end() - 1);
  const auto alone = live(prompt, nullptr);
  save({tokens, "no state"}, options());
  SessionStore store(options());
  EXPECT_EQ(live(prompt, &store)->tokens, alone->tokens);
  EXPECT_EQ(store.counts().damaged, 1);
}

TEST(Fingerprint, TellsRunnersApart) {
  FakeRunner one, same, other;
  one.prompts_end = same.prompts_end = true;
  other.prompts_end = false;
  EXPECT_EQ(fingerprint(one), fingerprint(same));
  EXPECT_NE(fingerprint(one), fingerprint(other));
  EXPECT_EQ(one.sequences(), 0u);
}

}  // namespace
}  // namespace dmc::engine
