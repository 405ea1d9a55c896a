#include "model/token_id.h"

#include "base/error.h"

namespace dmc::model {

void require_token(const ModelConfig& config, const std::string& field, int64_t id) {
  if (id >= 0 && id < config.vocab_size) return;
  throw invalid_argument(field, "the model has the tokens 0 to " +
                                    std::to_string(config.vocab_size - 1) + ", found " +
                                    std::to_string(id));
}

}  // namespace dmc::model
