#include "base/json.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/quoted.h"

namespace dmc {
namespace {

using nlohmann::json;

constexpr size_t kDeepest = 64;
constexpr size_t kLongestComplaint = 200;

// Builds the value from the parser's events and refuses what the library accepts but we must not:
// bottomless nesting (its destructor and dump recurse) and repeated keys (two readers would see two
// different files). The library's own builder with a callback walks over all of an object whenever
// something in it ends, which is quadratic.
class Builder : public nlohmann::json_sax<json> {
 public:
  Builder(const std::string& origin, size_t most_values) : origin_(origin), left_(most_values) {}

  bool null() override { return put(nullptr) != nullptr; }
  bool boolean(bool value) override { return put(value) != nullptr; }
  bool number_integer(number_integer_t value) override { return put(value) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return put(value) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override {
    return put(value) != nullptr;
  }
  bool string(string_t& value) override { return put(std::move(value)) != nullptr; }
  bool binary(binary_t&) override { return false; }  // JSON has none

  bool start_object(std::size_t) override { return open(json::value_t::object); }
  bool start_array(std::size_t) override { return open(json::value_t::array); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto& object = open_.back()->get_ref<json::object_t&>();
    const auto [place, fresh] = object.try_emplace(std::move(name));
    if (!fresh) throw data_error(origin_ + ": key " + in_quotes(place->first) + " appears twice");
    member_ = &place->second;
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception& error) override {
    std::string_view what = error.what();  // begins with the library's own "[json.exception...] "
    what.remove_prefix(std::min(what.size(), what.find("] ") + 2));
    throw data_error(origin_ + ": not valid JSON (" + printable(what, kLongestComplaint) + ")");
  }

  json take() { return std::move(root_); }

 private:
  // Where the value now stands: in the innermost open array or object, or by itself.
  json* put(json value) {
    if (left_-- == 0) throw data_error(origin_ + ": holds more JSON values than are read");
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& array = open_.back()->get_ref<json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  // What is open stays where it is: only the innermost array grows.
  bool open(json::value_t kind) {
    if (open_.size() > kDeepest) throw data_error(origin_ + ": JSON nests deeper than 64 levels");
    open_.push_back(put(json(kind)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const std::string& origin_;
  size_t left_;  // values that may still come
  json root_;
  std::vector<json*> open_;
  json* member_ = nullptr;  // of the innermost object: the value of the key just read
};

}  // namespace

json parse_json(std::string_view text, const std::string& origin, size_t most_values) {
  Builder builder(origin, most_values);
  json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

}  // namespace dmc
