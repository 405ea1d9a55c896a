#include "model/gguf/gguf_architecture.h"

#include <algorithm>

#include "base/join.h"
#include "base/json_fields.h"
#include "base/named.h"
#include "base/quoted.h"

namespace dmc::model {
namespace {

constexpr GgufModule kGatedModules[] = {
    {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};
constexpr GgufModule kGatedLayerModules[] = {
    {"input_layernorm", "attn_norm"},    {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},      {"self_attn.o_proj", "attn_output"},
    {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
    {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

constexpr GgufModule kPhi3LayerModules[] = {
    {"input_layernorm", "attn_norm"},   {"post_attention_layernorm", "ffn_norm"},
    {"self_attn.qkv_proj", "attn_qkv"}, {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_up_proj", "ffn_up"},     {"mlp.down_proj", "ffn_down"},
};

constexpr GgufModule kGpt2Modules[] = {{"transformer.wte", "token_embd"},
                                       {"transformer.wpe", "position_embd"},
                                       {"transformer.ln_f", "output_norm"},
                                       {"lm_head", "output"}};
constexpr GgufModule kGpt2LayerModules[] = {
    {"ln_1", "attn_norm"},
    {"ln_2", "ffn_norm"},
    {"attn.c_attn", "attn_qkv", /*turned=*/true},
    {"attn.c_proj", "attn_output", true},
    {"mlp.c_fc", "ffn_up", true},
    {"mlp.c_proj", "ffn_down", true},
};

// Mistral's models come as "llama".
constexpr GgufArchitecture kArchitectures[] = {
    {"llama", "llama", "model.layers.", kGatedModules, kGatedLayerModules, true},
    {"qwen2", "qwen2", "model.layers.", kGatedModules, kGatedLayerModules, false},
    {"qwen3", "qwen3", "model.layers.", kGatedModules, kGatedLayerModules, false},
    {"phi3", "phi3", "model.layers.", kGatedModules, kPhi3LayerModules, false},
    {"gpt2", "gpt2", "transformer.h.", kGpt2Modules, kGpt2LayerModules, false},
};

const GgufModule* find_module(std::span<const GgufModule> modules, std::string_view ours) {
  const auto found = std::ranges::find(modules, ours, &GgufModule::ours);
  return found == modules.end() ? nullptr : &*found;
}

}  // namespace

const GgufArchitecture& gguf_architecture(const GgufFile& file) {
  const std::string name = file.text("general.architecture");
  const GgufArchitecture* const found = find_named(kArchitectures, name);
  if (found != nullptr) return *found;
  throw data_error(file.origin() + " holds a model of architecture " + in_quotes(name) +
                   ", expected one of " + join(kArchitectures, ", ", &GgufArchitecture::name));
}

std::string gguf_key(const GgufArchitecture& architecture, std::string_view key) {
  return std::string(architecture.name) + "." + std::string(key);
}

int64_t gguf_size(const GgufFile& file, const GgufArchitecture& architecture,
                  std::string_view key) {
  const std::string full = gguf_key(architecture, key);
  if (!file.has(full) || !file.is_array(full)) return file.size(full, 1, kLargestSize);
  const std::vector<double> list = file.numbers(full);
  const bool same = std::ranges::adjacent_find(list, std::ranges::not_equal_to()) == list.end();
  if (list.empty() || !same || !(list[0] >= 1 && list[0] <= double{kLargestSize})) {
    throw file.wrong(full, "the same whole number for all layers");
  }
  return static_cast<int64_t>(list[0]);
}

std::optional<GgufPlace> gguf_place(const GgufArchitecture& architecture, std::string_view ours) {
  const size_t dot = ours.rfind('.');
  if (dot == ours.npos) return std::nullopt;
  const std::string_view suffix = ours.substr(dot);
  std::string_view module = ours.substr(0, dot);
  std::string prefix;
  std::span<const GgufModule> modules = architecture.modules;
  if (module.starts_with(architecture.layer)) {
    module.remove_prefix(architecture.layer.size());
    const size_t end = std::min(module.find('.'), module.size());
    prefix = "blk." + std::string(module.substr(0, end)) + ".";
    module.remove_prefix(std::min(end + 1, module.size()));
    modules = architecture.layer_modules;
  }
  const GgufModule* const found = find_module(modules, module);
  if (found == nullptr) return std::nullopt;
  return GgufPlace{prefix + std::string(found->theirs) + std::string(suffix),
                   found->turned && suffix == ".weight"};
}

}  // namespace dmc::model
