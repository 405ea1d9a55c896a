// A matrix of a checkpoint, read line by line out of a mapped file, in whatever form the file has
// it. Each format of files is one implementation; who computes with the numbers (packed weights,
// LibTorch's tensors) reads all of them through this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/dtype.h"

namespace dmc::model {

// How numbers are stored: as floats (group 0), or as whole numbers of a group that share a scale
// and, if has_minimum, what is added: number * scale + minimum.
struct WeightFormat {
  int bits = 32;
  int64_t group = 0;  // numbers along a line
  bool has_minimum = false;
  bool operator==(const WeightFormat&) const = default;
};

class MatrixSource {
 public:
  virtual ~MatrixSource() = default;

  // As the checkpoint's layout has them; a vector is one row.
  int64_t rows() const { return turned_ ? width_ : lines_; }
  int64_t columns() const { return turned_ ? lines_ : width_; }
  // Whether the file's lines are columns.
  bool turned() const { return turned_; }

  virtual WeightFormat format() const = 0;
  virtual std::string type_name() const = 0;  // in the file's words: "BF16", "Q4_1"
  virtual int64_t bytes() const = 0;          // in the file
  // What holds the numbers in memory where nothing else is asked for: kF32, kF16, kBF16 as they
  // are, kI8 with a scale for each line, and kBF16 for what no type of ours holds.
  virtual DType dtype() const = 0;

  // Rows first..first+count-1 in f32, [count][columns()].
  void read_rows(int64_t first, int64_t count, float* to) const;
  // Columns first..first+count-1, each after the other: [count][rows()].
  void read_columns(int64_t first, int64_t count, float* to) const;
  // All of it, on all threads: [rows()][columns()].
  void read_all(float* to) const;

  // The whole numbers of a line, one a byte, and the scale of each group; minima where the format
  // has them. For a format with groups alone.
  virtual void read_numbers(int64_t line, int8_t* numbers, float* scales, float* minima) const;
  // The bytes of a line of floats, or null for another format.
  virtual const std::byte* floats(int64_t line) const;

 protected:
  MatrixSource(int64_t lines, int64_t width, bool turned)
      : lines_(lines), width_(width), turned_(turned) {}

  // Numbers first..first+count-1 of a line.
  virtual void widen(int64_t line, int64_t first, int64_t count, float* to) const = 0;

  const int64_t lines_, width_;

 private:
  void read_lines(int64_t first, int64_t count, float* to) const;
  void read_across(int64_t first, int64_t count, float* to) const;

  const bool turned_;
};

// The tensors of a checkpoint, whatever its files.
class WeightStore {
 public:
  virtual ~WeightStore() = default;
  virtual bool has(const std::string& name) const = 0;
  // The tensor of this name of the layout, one or two extents; Error(kData) naming file and tensor
  // if it is missing, has another shape or a type that holds no weights.
  virtual std::unique_ptr<const MatrixSource> open(const std::string& name,
                                                   const std::vector<int64_t>& shape) const = 0;
  // Error(kData) if a file has lost bytes since it was opened, as MappedFile says.
  virtual void require_whole() const = 0;
};

}  // namespace dmc::model
