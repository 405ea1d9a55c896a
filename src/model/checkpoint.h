// The tensors of a model under the names its family's layout gives them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "model/adapter.h"
#include "model/families/family.h"
#include "model/matrix_source.h"

namespace dmc::model {

// What the files of a checkpoint hold of its layout.
struct CheckpointFacts {
  int64_t tensors = 0;
  int64_t bytes = 0;
  std::set<std::string> types;  // "BF16", "Q4_1"
};

class Checkpoint {
 public:
  // Maps the files of `model`, a Hugging Face directory or a GGUF file; Error(kData) if they are
  // damaged. If there is an `adapter`, the layout's adapter tensors are that file's, whatever
  // `model` has of them. Every tensor of the layout is there, with its shape and of a type that
  // holds weights, or Error(kData): so nobody allocates for what a config.json claims alone.
  Checkpoint(const std::filesystem::path& model, DecoderLayout layout,
             std::optional<AdapterFile> adapter = {});

  const DecoderLayout& layout() const { return layout_; }
  // The tensor of this name of the layout; it must not outlive the checkpoint. Error(kData) if it
  // is missing, has another shape or a type that holds no weights; whole numbers of safetensors
  // files are such, but for int8_matrices(). The layout's older names count too.
  std::unique_ptr<const MatrixSource> matrix(const std::string& name) const;
  // Reads the files' headers alone, so it takes neither memory nor time, however large the model.
  CheckpointFacts facts() const;
  // Error(kData) naming the first tensor in which a number is not finite. Reads all of them.
  void require_finite() const;
  // Error(kData) if a file has lost bytes since it was opened: to be asked after the last read.
  void require_whole() const;

 private:
  std::string stored_name(const std::string& name) const;

  std::string origin_;  // for messages
  DecoderLayout layout_;
  std::unique_ptr<const WeightStore> weights_;
  std::set<std::string> int8_matrices_, adapter_tensors_;
  std::optional<AdapterFile> adapter_;
};

struct ModelFiles {
  model::ModelConfig config;
  Checkpoint checkpoint;
};

// What `model` holds, with the adapter of a file of its own unless that is empty. Error(kData) as
// read_model_config(), Checkpoint and AdapterFile; Error(kInvalidArgument) as require_adaptable().
ModelFiles open_model(const std::filesystem::path& model,
                      const std::filesystem::path& adapter_file);

}  // namespace dmc::model
