#include <nlohmann/json.hpp>

#include "report/report.h"

namespace dmc::report {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const TrainingPoint& point) {
  return {{"step", point.step},
          {"loss", point.loss},
          {"cr", point.cr},
          {"wanted_cr", point.wanted_cr},
          {"tokens_per_second", point.tokens_per_second}};
}

Json to_json(const SpeedPoint& point) {
  return {{"context", point.context},
          {"batch", point.batch},
          {"tokens_per_second", point.tokens_per_second}};
}

Json to_json(const SlotsPoint& point) { return {{"tokens", point.tokens}, {"slots", point.slots}}; }

Json to_json(const Variant& variant);

template <typename T>
Json list(const std::vector<T>& items) {
  Json array = Json::array();
  for (const T& item : items) array.push_back(to_json(item));
  return array;
}

Json to_json(const Variant& variant) {
  return {{"name", variant.name},
          {"bits_per_byte", variant.bits_per_byte},
          {"accuracy", variant.accuracy},
          {"cr", variant.cr},
          {"slots", variant.slots},
          {"tokens", variant.tokens},
          {"cache_bytes", variant.cache_bytes},
          {"prefill_tokens_per_second", variant.prefill_tokens_per_second},
          {"decode", list(variant.decode)},
          {"slots_by_tokens", list(variant.slots_by_tokens)},
          {"cr_by_head", variant.cr_by_head},
          {"prompt", variant.prompt},
          {"sample", variant.sample}};
}

}  // namespace

std::string report_json(const ReportData& data) {
  Json facts = Json::object();
  for (const auto& [name, value] : data.facts) facts[name] = value;
  const Json json = {{"title", data.title},
                     {"subtitle", data.subtitle},
                     {"facts", facts},
                     {"training_name", data.training_name},
                     {"training", list(data.training)},
                     {"variants", list(data.variants)},
                     {"cache_context", data.cache_context},
                     {"footnote", data.footnote}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dmc::report
