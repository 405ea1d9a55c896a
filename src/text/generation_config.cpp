#include "text/generation_config.h"

#include "base/file.h"
#include "base/json.h"
#include "base/json_fields.h"
#include "text/tokenizer/tokenizer_config.h"

namespace dmc::text {

std::vector<int64_t> reply_stop_ids(const std::filesystem::path& dir, const Tokenizer& tokenizer) {
  std::vector<int64_t> ids;
  const std::filesystem::path file = dir / "generation_config.json";
  if (std::filesystem::exists(file)) {
    const nlohmann::json root = parse_json(read_text_file(file, size_t{1} << 20), file.string());
    ids = JsonFields(root, file.string()).token_ids("eos_token_id");
  }
  const auto end = tokenizer.token_id(read_tokenizer_config(dir).eos_token);
  if (end) ids.push_back(*end);
  return ids;
}

}  // namespace dmc::text
