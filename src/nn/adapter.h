// The adapter of a model (families/adapter.h) as training sees it.
#pragma once

#include "nn/decoder.h"

namespace dmc::nn {

// `base` with the decisions that `dmc` describes, taken by an adapter that decides nothing yet:
// norms of 1, projections of 0. The base's parameters are shared, not copied.
// Error(kInvalidArgument) as model::require_adaptable().
Decoder with_adapter(const Decoder& base, const model::DmcConfig& dmc);

// The base model of one with an adapter, as it was before; parameters are shared.
Decoder without_adapter(const Decoder& model);

// Multiplies all that the adapter says by `factor`.
void scale_adapter(Decoder& model, double factor);

// The adapter alone, in the dtype it has, as model::AdapterFile reads it. (Its size: kilobytes.)
void save_adapter(const Decoder& model, const std::filesystem::path& path);

}  // namespace dmc::nn
