#include "base/named.h"
#include "train/stage.h"

namespace dmc::train {
namespace {

constexpr Stage kStages[] = {
    {"dense", dense_stage, nullptr},
    {"zero-out", zero_out_stage, finish_zero_out},
    {"retrofit", retrofit_stage, nullptr},
    {"finetune", finetune_stage, nullptr},
};

}  // namespace

std::span<const Stage> stages() { return kStages; }

const Stage* find_stage(std::string_view name) { return find_named(kStages, name); }

}  // namespace dmc::train
