// Compressed caches of conversations in a folder, so that they are not taken in again after the
// server was stopped, killed, or had no room for them in memory. A session is found by its tokens,
// as a snapshot is (prefix_cache.h): a prompt that begins with all of them goes on from there.
//
// A file is checked before it is believed: it names the model and how it compresses, has bounds and
// hashes, and appears under its name only when all of it is on disk. When the folder is fuller than
// it may be, the sessions that were used longest ago go; their files' times say when that was.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "engine/model_runner.h"

namespace dmc::engine {

// Says what a runner's sequences are worth to another: a hash of what it computes and keeps of a
// text. Error(kInvalidArgument) of the field session_dir where its sequences cannot be saved.
uint64_t fingerprint(ModelRunner& runner);

// What is in a session's file.
struct Session {
  std::vector<int32_t> tokens;
  std::string state;  // ModelRunner::save()
};
struct SessionView {
  std::vector<int32_t> tokens;
  std::string_view state;  // in the bytes it was read from
};
std::string session_bytes(const Session& session, uint64_t fingerprint);
// Error(kData) that says what is wrong with them; `most_tokens` it may have.
SessionView read_session(std::string_view bytes, uint64_t fingerprint, int64_t most_tokens);

// A session in its file, which is mapped: the state is read where it lies. Ask
// file->require_whole() when it has been.
struct MappedSession {
  std::filesystem::path path;
  std::unique_ptr<const MappedFile> file;
  SessionView session;
};

struct SessionOptions {
  std::filesystem::path folder;  // made if it is not there; nobody else may have rights on it
  uint64_t most_bytes = uint64_t{4} << 30;  // of all files
  uint64_t fingerprint = 0;
  int64_t most_tokens = 0;  // of a session
};

struct SessionCounts {
  int64_t files = 0, bytes = 0;                              // now
  int64_t saved = 0, resumed = 0, damaged = 0, dropped = 0;  // since the start
};

// For one thread that asks; another one writes.
class SessionStore {
 public:
  // Looks through the folder. Error(kInvalidArgument) of the field session_dir if it cannot be
  // used.
  explicit SessionStore(SessionOptions options);
  ~SessionStore();  // what is to be saved is

  // Tokens of the longest session that begins `tokens` and leaves at least one of them; 0: none.
  int64_t find(std::span<const int32_t> tokens) const;
  // That session. Nothing if its file is gone or is not what was written; then it is discarded.
  std::optional<MappedSession> load(std::span<const int32_t> tokens);
  // What is in the file cannot be used after all.
  void discard(const std::filesystem::path& path, const Error& problem);
  bool contains(std::span<const int32_t> tokens) const;
  // Soon; not if so much waits to be written that the disk does not keep up.
  void save(Session session);

  SessionCounts counts() const;

 private:
  struct Entry {
    std::filesystem::path path;
    int64_t bytes;
    std::filesystem::file_time_type used;
    std::vector<int32_t> tokens;  // empty: of another model
  };

  void look_through();
  std::optional<Entry> entry_of(const std::filesystem::directory_entry& file) const;
  const Entry* longest(std::span<const int32_t> tokens) const;
  void used(const std::filesystem::path& path);
  void forget(const std::filesystem::path& path);
  void make_room(uint64_t bytes);
  void write(const Session& session);
  void run();

  SessionOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Entry> entries_;
  SessionCounts counts_;
  std::deque<Session> waiting_;
  uint64_t waiting_bytes_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace dmc::engine
