#include "model/model_path.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "base/error.h"
#include "base/temp_folder.h"

namespace dmc::model {
namespace {

namespace fs = std::filesystem;

class ModelPath : public testing::Test {
 protected:
  ModelPath() { ::setenv("HF_HUB_CACHE", folder_.path().c_str(), 1); }
  ~ModelPath() override { ::unsetenv("HF_HUB_CACHE"); }
  void write(const fs::path& file, const std::string& content) const {
    fs::create_directories((folder_.path() / file).parent_path());
    std::ofstream(folder_.path() / file) << content;
  }
  std::string complaint(const fs::path& model) const {
    try {
      require_model_path(model);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.field(), "model");
      return error.what();
    }
  }
  const TempFolder folder_;
  const fs::path snapshots_ = "models--org--name/snapshots";
};

TEST_F(ModelPath, NamesOfTheHubAreFoundInItsCache) {
  EXPECT_EQ(find_model("org/name"), "org/name");
  write(snapshots_ / "abc" / "config.json", "{}");
  write("models--org--name/refs/main", "abc\n");
  EXPECT_EQ(find_model("org/name"), folder_.path() / snapshots_ / "abc");
  write("models--org--name/refs/main", "../../..");
  EXPECT_EQ(find_model("org/name"), "org/name");
  EXPECT_EQ(find_model("../name"), "../name");
  EXPECT_EQ(find_model("models/builtin"), "models/builtin");
}

TEST_F(ModelPath, AGgufFileAloneIsTheModel) {
  write(snapshots_ / "abc" / "one.gguf", "GGUF");
  write("models--org--name/refs/main", "abc");
  EXPECT_EQ(find_model("org/name"), folder_.path() / snapshots_ / "abc" / "one.gguf");
  write(snapshots_ / "abc" / "two.gguf", "GGUF");
  EXPECT_EQ(find_model("org/name"), folder_.path() / snapshots_ / "abc");
}

TEST_F(ModelPath, WhatIsMissingIsSaid) {
  EXPECT_NE(complaint("org/name").find("hf download org/name"), std::string::npos);
  EXPECT_EQ(complaint("/nothing/here").find("hf download"), std::string::npos);
  EXPECT_NE(complaint("README.md").find("neither a model directory nor a GGUF"), std::string::npos);
  EXPECT_EQ(complaint("models/builtin"), "");
}

}  // namespace
}  // namespace dmc::model
