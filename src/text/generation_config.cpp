#include "text/generation_config.h"

#include "base/json.h"
#include "base/json_fields.h"
#include "text/model_text.h"
#include "text/tokenizer/tokenizer_config.h"

namespace dmc::text {

std::vector<int64_t> reply_stop_ids(const std::filesystem::path& model,
                                    const Tokenizer& tokenizer) {
  constexpr auto kFile = "generation_config.json";
  std::vector<int64_t> ids;
  if (const auto text = read_model_text(model, kFile, size_t{1} << 20)) {
    const std::string origin = model_text_origin(model, kFile);
    const nlohmann::json root = parse_json(*text, origin);
    ids = JsonFields(root, origin).token_ids("eos_token_id");
  }
  const auto end = tokenizer.token_id(read_tokenizer_config(model).eos_token);
  if (end) ids.push_back(*end);
  return ids;
}

}  // namespace dmc::text
