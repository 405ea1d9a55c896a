#include "text/tokenizer/json_fields.h"

#include "base/error.h"
#include "base/quoted.h"
#include "text/tokenizer/vocabulary.h"

namespace dmc::text {

int32_t read_token_id(const nlohmann::json& id, const std::string& origin) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= Vocabulary::kMostTokens) {
    throw data_error(origin + ": token id " + printable(id.dump()) +
                     " is not a whole number from 0 to " +
                     std::to_string(Vocabulary::kMostTokens - 1));
  }
  return id.get<int32_t>();
}

AddedToken read_added_token(const nlohmann::json& entry, int32_t id) {
  return {.text = entry.at("content").get<std::string>(),
          .id = id,
          .special = entry.value("special", false),
          .normalized = entry.value("normalized", false),
          .strip_left = entry.value("lstrip", false),
          .strip_right = entry.value("rstrip", false),
          .single_word = entry.value("single_word", false)};
}

}  // namespace dmc::text
