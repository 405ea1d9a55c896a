#include "server/fields.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace dmc::server {
namespace {

using nlohmann::json;

// The field that a body is refused for; empty if it is not.
std::string refused(const json& body, Endpoint where) {
  try {
    RequestFields fields(body, where);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.field();
  }
  return "";
}

class EveryField : public testing::TestWithParam<Field> {};

TEST_P(EveryField, MayBeNullAndIsNoObjectsObject) {
  const Field& field = GetParam();
  const std::string name(field.name);
  for (const Endpoint where : {Endpoint::kCompletions, Endpoint::kChat}) {
    if (!has_field(field, where)) continue;
    EXPECT_EQ(refused({{name, nullptr}}, where), "");
    const json nested = {{"deep", json::array({json::object()})}};
    if (field.type != FieldType::kObject) {
      EXPECT_EQ(refused({{name, nested}}, where), name);
    }
    if (!field.fallback.empty()) {
      EXPECT_EQ(refused({{name, json::parse(field.fallback)}}, where), "");
    }
  }
}

TEST_P(EveryField, NumbersKeepTheirRange) {
  const Field& field = GetParam();
  if (field.type != FieldType::kInteger && field.type != FieldType::kNumber) return;
  const std::string name(field.name);
  EXPECT_EQ(refused({{name, field.most}}, field.where), "");
  EXPECT_EQ(refused({{name, field.least}}, field.where), field.above ? name : "");
  EXPECT_EQ(refused({{name, field.most + 1 + field.most / 1024}}, field.where), name);
  EXPECT_EQ(refused({{name, field.least - 1 + field.least / 1024}}, field.where), name);
  for (const json& wrong : {json("1"), json(true), json::array({1}), json(1e300), json(-1e300)}) {
    EXPECT_EQ(refused({{name, wrong}}, field.where), name) << wrong;
  }
  const bool half = field.type == FieldType::kNumber && field.least < 0.5 && field.most >= 0.5;
  EXPECT_EQ(refused({{name, 0.5}}, field.where), half ? "" : name);
}

INSTANTIATE_TEST_SUITE_P(Table, EveryField,
                         testing::ValuesIn(request_fields().begin(), request_fields().end()));

TEST(Fields, WholeNumbersMayBeWrittenWithAPoint) {
  EXPECT_EQ(whole_number(json::parse("3.0")), 3);
  EXPECT_EQ(whole_number(json::parse("-7")), -7);
  EXPECT_FALSE(whole_number(json::parse("3.5")));
  EXPECT_FALSE(whole_number(json::parse("18446744073709551615")));
  EXPECT_FALSE(whole_number(json("3")));
}

TEST(Fields, OnlyNeutralValuesOfWhatIsNotSupported) {
  EXPECT_EQ(refused({{"tools", json::array()}}, Endpoint::kChat), "");
  EXPECT_EQ(refused({{"tools", {1}}}, Endpoint::kChat), "tools");
  EXPECT_EQ(refused({{"response_format", {{"type", "text"}}}}, Endpoint::kChat), "");
  EXPECT_EQ(refused({{"whatever", 1}}, Endpoint::kChat), "") << "unknown fields are not ours";
  EXPECT_EQ(refused({{"logprobs", true}}, Endpoint::kChat), "");
  EXPECT_EQ(refused({{"logprobs", true}}, Endpoint::kCompletions), "logprobs");
}

}  // namespace
}  // namespace dmc::server
