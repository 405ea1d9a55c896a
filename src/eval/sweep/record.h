// What a sweep has measured: one line of JSON a cell, appended as it is done, so that a sweep can
// be stopped anywhere and goes on where it was.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/tasks/task.h"

namespace dmc::eval {

// What is measured in one go, and tells one measurement from another.
struct SweepCell {
  std::string model;   // folder
  std::string policy;  // of the policy table
  double cr = 0.0;     // wanted; 0: what the policy does by itself
  std::string kv;      // precision of closed slots: "f32", "int8"
  std::string task;    // of the task table, or kTextTask or kSpeedTask
  std::string size;    // how much of it, of what: "32 windows of 2048"

  bool operator==(const SweepCell&) const = default;
};

inline constexpr const char* kTextTask = "text";    // held-out text
inline constexpr const char* kSpeedTask = "speed";  // metrics kBytesPerToken, kPrefill, kDecode
inline constexpr const char* kBytesPerToken = "cache_bytes_per_token";
inline constexpr const char* kPrefill = "prefill_tokens_per_second";
inline constexpr const char* kDecode = "decode_tokens_per_second";  // of all sequences together

struct SweepRecord {
  SweepCell cell;
  TaskScore score;
  std::vector<std::vector<double>> cr_by_head;  // [layer][KV head]; of held-out text
  double seconds = 0.0;                         // it took
};

std::string to_line(const SweepRecord& record);  // without the newline
// Error(kData) naming `origin` and the field for what is no such line.
SweepRecord parse_line(const std::string& line, const std::string& origin);

class SweepFile {
 public:
  // Reads what is there. A last line without its newline was cut off by a crash and is dropped.
  explicit SweepFile(std::filesystem::path path);

  const std::vector<SweepRecord>& records() const { return records_; }
  bool has(const SweepCell& cell) const;
  void append(SweepRecord record);  // and writes it

 private:
  std::filesystem::path path_;
  std::vector<SweepRecord> records_;
};

}  // namespace dmc::eval
