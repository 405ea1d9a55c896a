#include "engine/session_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <limits>
#include <utility>

#include "base/bytes.h"
#include "base/leftovers.h"

namespace dmc::engine {
namespace fs = std::filesystem;
namespace {

constexpr char kMark[] = {'d', 'm', 'c', 's', 'e', 's', 's', '1'};
constexpr const char* kEnding = ".session";
constexpr uint64_t kMostWaiting = uint64_t{256} << 20;  // bytes
constexpr size_t kMostFiles = 100'000;

template <class T>
std::string_view as_bytes(std::span<const T> values) {
  return {reinterpret_cast<const char*>(values.data()), values.size_bytes()};
}

std::string_view text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

uint64_t size_of(const Session& session) {
  return session.state.size() + session.tokens.size() * sizeof(int32_t);
}

std::string hexadecimal(uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(number));
  return text;
}

// Of what a file says first: which model, which tokens.
struct Head {
  uint64_t fingerprint, state_bytes, state_hash;
  std::vector<int32_t> tokens;
};

// Takes it off `from`.
Head read_head(ByteReader* from, int64_t most_tokens) {
  char mark[sizeof kMark];
  from->take_bytes(mark, sizeof mark);
  from->check(std::equal(mark, mark + sizeof mark, kMark), "is no session");
  const auto hash = from->take<uint64_t>();
  const std::string_view hashed = from->rest();
  Head head{from->take<uint64_t>(), from->take<uint64_t>(), from->take<uint64_t>(), {}};
  const auto count = from->take<uint64_t>();
  from->check(count > 0, "has no tokens");
  from->check(count <= static_cast<uint64_t>(most_tokens), "is longer than the model's context");
  from->require(count, sizeof(int32_t));
  head.tokens.resize(count);
  from->take_all(std::span(head.tokens));
  from->check(hash_bytes(hashed.substr(0, hashed.size() - from->rest().size())) == hash,
              "is damaged");
  return head;
}

void make_folder(const fs::path& folder) {
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    throw invalid_argument("session_dir",
                           folder.string() + " cannot be made: " + std::strerror(errno));
  }
  struct stat status {};
  if (::stat(folder.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
    throw invalid_argument("session_dir", folder.string() + " is no folder");
  }
  if (status.st_uid != ::geteuid() || (status.st_mode & 077) != 0) {
    throw invalid_argument("session_dir",
                           "others have rights on " + folder.string() +
                               ", and conversations are private; make it yours (chmod 700)");
  }
  if (::access(folder.c_str(), R_OK | W_OK | X_OK) != 0) {
    throw invalid_argument("session_dir", folder.string() + " cannot be written to");
  }
}

}  // namespace

uint64_t fingerprint(ModelRunner& runner) {
  // Long enough for decisions to come into force, by prefill and by decoding.
  const int64_t count = std::min<int64_t>(96, runner.max_positions());
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(static_cast<int32_t>(mix64(static_cast<uint64_t>(i)) %
                                          static_cast<uint64_t>(runner.vocab_size())));
  }
  const Sequence sequence = Sequence::add(runner);
  const auto most = std::span<const int32_t>(tokens);
  if (count > 1) prefill(runner, sequence.id(), most.first(most.size() - 1));
  const SequenceId id = sequence.id();
  const std::vector<float> logits = decode(runner, {&id, 1}, most.last(1));
  const std::optional<std::string> state = runner.save(id);
  if (!state) {
    throw invalid_argument("session_dir",
                           "what this policy keeps, or this device, cannot be saved; sessions are "
                           "for dense, dmc and dms on the CPU");
  }
  return mix64(hash_bytes(*state) ^ hash_bytes(as_bytes(std::span<const float>(logits))));
}

std::string session_bytes(const Session& session, uint64_t fingerprint) {
  ByteWriter head;
  head.put(fingerprint);
  head.put(uint64_t{session.state.size()});
  head.put(hash_bytes(session.state));
  head.put(uint64_t{session.tokens.size()});
  head.put_all(std::span(session.tokens));
  ByteWriter all;
  all.put_bytes(kMark, sizeof kMark);
  all.put(hash_bytes(head.bytes()));
  all.put_bytes(head.bytes().data(), head.bytes().size());
  all.put_bytes(session.state.data(), session.state.size());
  return all.take();
}

SessionView read_session(std::string_view bytes, uint64_t fingerprint, int64_t most_tokens) {
  ByteReader from(bytes, "the session");
  Head head = read_head(&from, most_tokens);
  from.check(head.fingerprint == fingerprint, "is of another model, or of other options");
  const std::string_view state = from.rest();
  from.check(head.state_bytes == state.size() && head.state_hash == hash_bytes(state),
             "is damaged");
  return {std::move(head.tokens), state};
}

SessionStore::SessionStore(SessionOptions options) : options_(std::move(options)) {
  make_folder(options_.folder);
  remove_leftovers(options_.folder);
  look_through();
  make_room(0);
  thread_ = std::thread([this] { run(); });
}

SessionStore::~SessionStore() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

// Nothing for what is no session. Those of other models count, but are not read further.
std::optional<SessionStore::Entry> SessionStore::entry_of(const fs::directory_entry& file) const {
  std::error_code error;
  if (file.path().extension() != kEnding || !fs::is_regular_file(file.symlink_status(error))) {
    return {};
  }
  try {
    const MappedFile mapped(file.path());
    ByteReader from(text_of(mapped), file.path().filename().string());
    Head head = read_head(&from, std::numeric_limits<int32_t>::max());
    const bool ours =
        head.fingerprint == options_.fingerprint && std::ssize(head.tokens) <= options_.most_tokens;
    if (!ours) head.tokens.clear();
    return Entry{file.path(), static_cast<int64_t>(mapped.bytes().size()),
                 fs::last_write_time(file.path(), error), std::move(head.tokens)};
  } catch (const Error& problem) {
    std::cerr << "dmc: a session is left out: " << problem.what() << "\n";
    return {};
  }
}

void SessionStore::look_through() {
  std::error_code error;
  for (const auto& file : fs::directory_iterator(options_.folder, error)) {
    if (entries_.size() >= kMostFiles) break;
    std::optional<Entry> entry = entry_of(file);
    if (!entry) continue;
    counts_.bytes += entry->bytes;
    entries_.push_back(std::move(*entry));
  }
  counts_.files = std::ssize(entries_);
}

const SessionStore::Entry* SessionStore::longest(std::span<const int32_t> tokens) const {
  const Entry* best = nullptr;
  for (const Entry& entry : entries_) {
    const size_t size = entry.tokens.size();
    if (size == 0 || size >= tokens.size() || (best && size <= best->tokens.size())) continue;
    if (std::ranges::equal(entry.tokens, tokens.first(size))) best = &entry;
  }
  return best;
}

int64_t SessionStore::find(std::span<const int32_t> tokens) const {
  const std::lock_guard lock(mutex_);
  const Entry* const entry = longest(tokens);
  return entry != nullptr ? std::ssize(entry->tokens) : 0;
}

bool SessionStore::contains(std::span<const int32_t> tokens) const {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(
      entries_, [&](const Entry& entry) { return std::ranges::equal(entry.tokens, tokens); });
}

std::optional<MappedSession> SessionStore::load(std::span<const int32_t> tokens) {
  fs::path path;
  {
    const std::lock_guard lock(mutex_);
    const Entry* const entry = longest(tokens);
    if (entry == nullptr) return {};
    path = entry->path;
  }
  try {
    auto file = std::make_unique<const MappedFile>(path);
    SessionView session = read_session(text_of(*file), options_.fingerprint, options_.most_tokens);
    const bool begins = session.tokens.size() < tokens.size() &&
                        std::ranges::equal(session.tokens, tokens.first(session.tokens.size()));
    if (!begins) throw data_error("the session is another one than it was");
    used(path);
    return MappedSession{path, std::move(file), std::move(session)};
  } catch (const Error& error) {
    discard(path, error);
    return {};
  }
}

void SessionStore::used(const fs::path& path) {
  std::error_code ignored;
  const auto now = fs::file_time_type::clock::now();
  fs::last_write_time(path, now, ignored);
  const std::lock_guard lock(mutex_);
  ++counts_.resumed;
  for (Entry& entry : entries_) {
    if (entry.path == path) entry.used = now;
  }
}

void SessionStore::discard(const fs::path& path, const Error& problem) {
  std::cerr << "dmc: the session " << path.filename().string() << " is removed: " << problem.what()
            << "\n";
  const std::lock_guard lock(mutex_);
  ++counts_.damaged;
  forget(path);
}

// With its file.
void SessionStore::forget(const fs::path& path) {
  const auto entry = std::ranges::find(entries_, path, &Entry::path);
  if (entry == entries_.end()) return;
  std::error_code ignored;
  fs::remove(path, ignored);
  counts_.bytes -= entry->bytes;
  entries_.erase(entry);
  counts_.files = std::ssize(entries_);
}

void SessionStore::make_room(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  while (!entries_.empty() && (static_cast<uint64_t>(counts_.bytes) + bytes > options_.most_bytes ||
                               entries_.size() >= kMostFiles)) {
    const fs::path oldest = std::ranges::min_element(entries_, {}, &Entry::used)->path;
    forget(oldest);
  }
}

void SessionStore::save(Session session) {
  const std::lock_guard lock(mutex_);
  const uint64_t bytes = size_of(session);
  if (waiting_bytes_ > 0 && waiting_bytes_ + bytes > kMostWaiting) {
    ++counts_.dropped;
    return;
  }
  waiting_bytes_ += bytes;
  waiting_.push_back(std::move(session));
  changed_.notify_one();
}

// By the thread that writes.
void SessionStore::write(const Session& session) {
  const std::string bytes = session_bytes(session, options_.fingerprint);
  if (bytes.size() > options_.most_bytes) {
    const std::lock_guard lock(mutex_);
    ++counts_.dropped;
    return;
  }
  make_room(bytes.size());
  const uint64_t name = hash_bytes(as_bytes(std::span<const int32_t>(session.tokens)));
  const fs::path path =
      options_.folder / (hexadecimal(options_.fingerprint) + "-" + hexadecimal(name) + kEnding);
  try {
    write_file_atomically(path, bytes);
  } catch (const Error& error) {
    std::cerr << "dmc: a session was not saved: " << error.what() << "\n";
    const std::lock_guard lock(mutex_);
    ++counts_.dropped;
    return;
  }
  const std::lock_guard lock(mutex_);
  std::erase_if(entries_, [&](const Entry& entry) {
    if (entry.path != path) return false;
    counts_.bytes -= entry.bytes;
    return true;
  });
  entries_.push_back({path, std::ssize(bytes), fs::file_time_type::clock::now(), session.tokens});
  counts_.bytes += std::ssize(bytes);
  counts_.files = std::ssize(entries_);
  ++counts_.saved;
}

void SessionStore::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const Session session = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    write(session);
    lock.lock();
    waiting_bytes_ -= size_of(session);
  }
}

SessionCounts SessionStore::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

}  // namespace dmc::engine
