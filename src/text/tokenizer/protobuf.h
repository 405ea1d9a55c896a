// As much of the protocol buffer wire format as a tokenizer.model needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dmc::text {

// Reads the fields of one message. Every length is checked against what is left.
class ProtobufReader {
 public:
  // `origin` names the file for Error(kData) when the message is cut off or malformed.
  ProtobufReader(std::string_view message, const std::string& origin)
      : rest_(message), origin_(origin) {}

  // Goes to the next field; false at the end of the message.
  bool next();
  uint32_t field() const { return field_; }

  // The value of the current field; Error(kData) if it is not of this kind.
  uint64_t integer() const;
  float real() const;
  std::string_view bytes() const;  // a view into the message: text or a message within

 private:
  enum class Wire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
  uint64_t take_varint();
  uint64_t take_fixed(size_t size);
  std::string_view take(size_t size);
  void expect(Wire wire) const;
  [[noreturn]] void malformed() const;

  std::string_view rest_;
  const std::string& origin_;
  uint32_t field_ = 0;
  Wire wire_ = Wire::kVarint;
  uint64_t number_ = 0;
  std::string_view bytes_;
};

// Puts a message together, field by field.
class ProtobufWriter {
 public:
  void integer(uint32_t field, uint64_t value);
  void real(uint32_t field, float value);
  void bytes(uint32_t field, std::string_view bytes);
  const std::string& message() const { return message_; }

 private:
  void varint(uint64_t value);

  std::string message_;
};

}  // namespace dmc::text
