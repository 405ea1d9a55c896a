#include "eval/data_file.h"

#include <charconv>

#include "base/error.h"
#include "base/json.h"
#include "text/packed_file.h"
#include "text/strings.h"

namespace dmc::eval {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw data_error(where + ": " + what);
}

}  // namespace

const json& Record::at(const char* key) const {
  if (!json.contains(key)) fail(where, std::string("the key \"") + key + "\" is missing");
  return json[key];
}

std::string Record::text(const char* key) const {
  if (!at(key).is_string()) fail(where, std::string("\"") + key + "\" must be text");
  return json[key].get<std::string>();
}

std::vector<std::string> Record::texts(const char* key) const {
  std::vector<std::string> result;
  for (const auto& value : at(key)) {
    if (!value.is_string()) fail(where, std::string("\"") + key + "\" must be a list of texts");
    result.push_back(value.get<std::string>());
  }
  return result;
}

std::vector<Record> read_json_lines(const fs::path& path) {
  const std::string content = text::read_unpacked(path);
  std::vector<Record> records;
  int64_t number = 0;
  for (std::string_view line : text::split_lines(content)) {
    ++number;
    if (text::stripped(line).empty()) continue;
    const std::string where = path.string() + ", line " + std::to_string(number);
    records.push_back({parse_json(line, where), where});
    if (!records.back().json.is_object()) fail(where, "is not a JSON object");
  }
  return records;
}

std::vector<Record> read_json_array(const fs::path& path) {
  json list = parse_json(text::read_unpacked(path), path.string());
  if (!list.is_array()) fail(path.string(), "is not a JSON list");
  std::vector<Record> records;
  for (auto& entry : list) {
    const std::string where = path.string() + ", entry " + std::to_string(records.size() + 1);
    if (!entry.is_object()) fail(where, "is not a JSON object");
    records.push_back({std::move(entry), where});
  }
  return records;
}

std::vector<std::vector<std::string>> parse_csv(std::string_view text, const std::string& origin) {
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> row;
  std::string cell;
  bool quoted = false, any = false;  // any: this row has begun
  const auto end_row = [&] {
    if (!any) return;  // an empty line
    row.push_back(std::move(cell));
    rows.push_back(std::move(row));
    row.clear();
    cell.clear();
    any = false;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c != '"') {
        cell += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        cell += text[++i];
      } else {
        quoted = false;
      }
    } else if (c == '"' && cell.empty()) {
      quoted = any = true;
    } else if (c == ',') {
      any = true;
      row.push_back(std::move(cell));
      cell.clear();
    } else if (c == '\n') {
      end_row();
    } else if (c != '\r') {
      any = true;
      cell += c;
    }
  }
  if (quoted) fail(origin, "a quoted cell does not end");
  end_row();
  return rows;
}

size_t read_index(const json& value, size_t count, const std::string& where) {
  size_t index = count;
  if (value.is_number_unsigned()) {
    index = value.get<size_t>();
  } else if (value.is_string()) {
    const auto text = value.get<std::string>();
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), index);
    if (error != std::errc() || end != text.data() + text.size()) index = count;
  }
  if (index >= count) {
    fail(where, "the answer is " + value.dump() + ", expected a number from 0 to " +
                    std::to_string(count - 1));
  }
  return index;
}

}  // namespace dmc::eval
