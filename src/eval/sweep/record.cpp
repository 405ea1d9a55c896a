#include "eval/sweep/record.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/quoted.h"

namespace dmc::eval {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLargestFile = size_t{1} << 28;

double number_or_nan(const nlohmann::json& value) {
  return value.is_null() ? NAN : value.get<double>();
}

Json to_json(const Metric& metric) {
  return {
      {"name", metric.name}, {"value", metric.value}, {"standard_error", metric.standard_error}};
}

Metric read_metric(const nlohmann::json& json) {
  return {json.at("name").get<std::string>(), number_or_nan(json.at("value")),
          number_or_nan(json.at("standard_error"))};
}

Json to_json(const Grid& grid) {
  return {{"row_label", grid.row_label},
          {"column_label", grid.column_label},
          {"rows", grid.rows},
          {"columns", grid.columns},
          {"values", grid.values}};
}

Grid read_grid(const nlohmann::json& json) {
  return {json.at("row_label"), json.at("column_label"), json.at("rows"), json.at("columns"),
          json.at("values")};
}

template <class T>
Json list(const std::vector<T>& items) {
  Json array = Json::array();
  for (const T& item : items) array.push_back(to_json(item));
  return array;
}

SweepRecord read_record(const nlohmann::json& json) {
  SweepRecord record;
  record.cell = {json.at("model"), json.at("policy"), json.at("cr"),
                 json.at("kv"),    json.at("task"),   json.at("size")};
  record.score.items = json.at("items");
  record.score.compression_ratio = json.at("compression_ratio");
  for (const auto& metric : json.at("metrics")) {
    record.score.metrics.push_back(read_metric(metric));
  }
  for (const auto& grid : json.at("grids")) record.score.grids.push_back(read_grid(grid));
  record.cr_by_head = json.at("cr_by_head").get<std::vector<std::vector<double>>>();
  record.seconds = json.at("seconds");
  if (record.score.metrics.empty()) throw data_error("there are no metrics");
  return record;
}

}  // namespace

std::string to_line(const SweepRecord& record) {
  const SweepCell& cell = record.cell;
  const Json json = {{"model", cell.model},
                     {"policy", cell.policy},
                     {"cr", cell.cr},
                     {"kv", cell.kv},
                     {"task", cell.task},
                     {"size", cell.size},
                     {"items", record.score.items},
                     {"compression_ratio", record.score.compression_ratio},
                     {"metrics", list(record.score.metrics)},
                     {"grids", list(record.score.grids)},
                     {"cr_by_head", record.cr_by_head},
                     {"seconds", record.seconds}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

SweepRecord parse_line(const std::string& line, const std::string& origin) {
  try {
    return read_record(parse_json(line, origin));
  } catch (const nlohmann::json::exception& error) {
    throw data_error(origin + " is no line of a sweep (" + printable(error.what(), 200) +
                     "); move the file away or give another --out");
  }
}

SweepFile::SweepFile(fs::path path) : path_(std::move(path)) {
  if (!fs::exists(path_)) return;
  std::string text = read_text_file(path_, kLargestFile);
  const size_t whole = text.find_last_of('\n') + 1;  // 0 if there is none
  if (whole < text.size()) fs::resize_file(path_, whole);
  size_t number = 0;
  for (size_t at = 0; at < whole;) {
    const size_t end = text.find('\n', at);
    records_.push_back(parse_line(text.substr(at, end - at),
                                  path_.string() + " line " + std::to_string(++number)));
    at = end + 1;
  }
}

bool SweepFile::has(const SweepCell& cell) const {
  return std::ranges::find(records_, cell, &SweepRecord::cell) != records_.end();
}

void SweepFile::append(SweepRecord record) {
  std::ofstream file(path_, std::ios::app);
  file << to_line(record) << '\n' << std::flush;
  if (!file) throw data_error(path_.string() + " cannot be written; check the folder and the disk");
  records_.push_back(std::move(record));
}

}  // namespace dmc::eval
