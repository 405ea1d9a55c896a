#include "text/tokenizer/protobuf.h"

#include <bit>

#include "base/error.h"

namespace dmc::text {

void ProtobufReader::malformed() const {
  throw data_error(origin_ + " is not a sentencepiece model: its protocol buffer is cut off or " +
                   "malformed");
}

std::string_view ProtobufReader::take(size_t size) {
  if (size > rest_.size()) malformed();
  const std::string_view taken = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return taken;
}

uint64_t ProtobufReader::take_varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = static_cast<unsigned char>(take(1)[0]);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
  malformed();
}

uint64_t ProtobufReader::take_fixed(size_t size) {
  const std::string_view little_endian = take(size);
  uint64_t value = 0;
  for (size_t i = size; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(little_endian[i]);
  }
  return value;
}

bool ProtobufReader::next() {
  if (rest_.empty()) return false;
  const uint64_t tag = take_varint();
  if (tag >> 3 == 0 || tag >> 32 != 0) malformed();
  field_ = static_cast<uint32_t>(tag >> 3);
  wire_ = static_cast<Wire>(tag & 7);
  switch (wire_) {
    case Wire::kVarint:
      number_ = take_varint();
      return true;
    case Wire::kFixed64:
      number_ = take_fixed(8);
      return true;
    case Wire::kBytes:
      bytes_ = take(take_varint());
      return true;
    case Wire::kFixed32:
      number_ = take_fixed(4);
      return true;
  }
  malformed();
}

void ProtobufReader::expect(Wire wire) const {
  if (wire_ != wire) malformed();
}

uint64_t ProtobufReader::integer() const {
  expect(Wire::kVarint);
  return number_;
}

float ProtobufReader::real() const {
  expect(Wire::kFixed32);
  return std::bit_cast<float>(static_cast<uint32_t>(number_));
}

std::string_view ProtobufReader::bytes() const {
  expect(Wire::kBytes);
  return bytes_;
}

void ProtobufWriter::varint(uint64_t value) {
  for (; value >= 0x80; value >>= 7) message_ += static_cast<char>(value | 0x80);
  message_ += static_cast<char>(value);
}

void ProtobufWriter::integer(uint32_t field, uint64_t value) {
  varint(uint64_t{field} << 3);
  varint(value);
}

void ProtobufWriter::real(uint32_t field, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  varint(uint64_t{field} << 3 | 5);
  for (int shift = 0; shift < 32; shift += 8) message_ += static_cast<char>(bits >> shift);
}

void ProtobufWriter::bytes(uint32_t field, std::string_view bytes) {
  varint(uint64_t{field} << 3 | 2);
  varint(bytes.size());
  message_ += bytes;
}

}  // namespace dmc::text
