// Files of evaluation data, packed or not (text/packed_file.h): JSON lines, CSV. All of it is
// checked as it is read.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace dmc::eval {

// A JSON object out of a file, and where it stands, for messages.
struct Record {
  nlohmann::json json;
  std::string where;  // "dev.jsonl, line 7"

  // The value of a key; Error(kData) naming the place if it is missing or has another type.
  std::string text(const char* key) const;
  std::vector<std::string> texts(const char* key) const;
  const nlohmann::json& at(const char* key) const;
  bool has(const char* key) const { return json.contains(key); }
};

std::vector<Record> read_json_lines(const std::filesystem::path& path);
std::vector<Record> read_json_array(const std::filesystem::path& path);

// RFC 4180: cells may be quoted and then contain commas, newlines and doubled quotes.
std::vector<std::vector<std::string>> parse_csv(std::string_view text, const std::string& origin);

// `value` as an index below `count`: a number, or text that is one. Error(kData) otherwise.
size_t read_index(const nlohmann::json& value, size_t count, const std::string& where);

}  // namespace dmc::eval
