#include "server/model_folder.h"

#include <chrono>

#include "text/generation_config.h"
#include "text/tokenizer/tokenizer_config.h"

namespace dmc::server {
namespace {

nlohmann::ordered_json tokenizer_info(const std::filesystem::path& dir, const ServedModel& model) {
  nlohmann::ordered_json info = nlohmann::ordered_json::object();
  const text::TokenizerConfig config = text::read_tokenizer_config(dir);
  if (!config.bos_token.empty()) info["bos_token"] = config.bos_token;
  std::string eos = config.eos_token;
  if (eos.empty() && !model.eos_ids.empty()) {
    eos = model.tokenizer.token_bytes(static_cast<int32_t>(model.eos_ids.front()));
  }
  info["eos_token"] = eos;
  info["pad_token"] = eos;
  if (!config.unk_token.empty()) info["unk_token"] = config.unk_token;
  info["tokenizer_class"] = "dmc";
  return info;
}

std::string name_of(const std::filesystem::path& named) {
  return (std::filesystem::is_regular_file(named) ? named.stem() : named.filename()).string();
}

int64_t seconds_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

}  // namespace

ServedModel model_in(const std::filesystem::path& dir, const std::string& name, int64_t context,
                     int64_t vocab_size, const std::vector<int64_t>& eos_ids) {
  const std::filesystem::path named = std::filesystem::weakly_canonical(dir);
  ServedModel model{
      name.empty() ? name_of(named) : name, named.string(), seconds_now(), context, vocab_size,
      text::Tokenizer(dir, vocab_size)};
  if (auto chat = text::ChatTemplate::find(dir)) model.chat.emplace(std::move(*chat));
  model.eos_ids = model.reply_ids = eos_ids;
  const auto stops = text::reply_stop_ids(dir, model.tokenizer);
  model.reply_ids.insert(model.reply_ids.end(), stops.begin(), stops.end());
  model.tokenizer_info = tokenizer_info(dir, model);
  return model;
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

// Pages in a browser may reach a server on this machine under any name; only ours are answered.
std::vector<std::string> allowed_hosts(const std::string& address,
                                       std::vector<std::string> further) {
  if (!further.empty() || is_loopback(address)) {
    further.insert(further.end(), {"localhost", "127.0.0.1", "[::1]", address});
  }
  return further;
}

}  // namespace dmc::server
