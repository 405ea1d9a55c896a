#include "base/quoted.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "base/utf8.h"

namespace dmc {
namespace {

TEST(Quoted, LeavesPlainTextAlone) {
  EXPECT_EQ(in_quotes("model.layers.0"), "\"model.layers.0\"");
  EXPECT_EQ(printable("größe 日本"), "größe 日本");
  EXPECT_EQ(in_quotes(""), "\"\"");
}

TEST(Quoted, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(in_quotes("a\x1b[2Jb"), "\"a\\x1b[2Jb\"");
  EXPECT_EQ(printable("a\nb\tc\rd"), "a\\nb\\tc\\rd");
  EXPECT_EQ(printable("\xc2\x9b"
                      "1m"),
            "\\x9b1m");  // the one-byte CSI, as a code point
  EXPECT_EQ(printable("\x9b"
                      "1m"),
            "\\x9b1m");  // and as a byte that is no UTF-8
  EXPECT_EQ(printable("\xe2\x80\xae"
                      "cod.exe"),
            "\\u202ecod.exe");  // right-to-left override
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
}

TEST(Quoted, QuotesCannotBeClosedFromInside) { EXPECT_EQ(in_quotes("a\"b"), "\"a\\\"b\""); }

TEST(Quoted, CutsAtCharacters) {
  EXPECT_EQ(printable(std::string(80, 'x')), std::string(80, 'x'));
  EXPECT_EQ(printable(std::string(81, 'x')), std::string(80, 'x') + "...");
  EXPECT_EQ(in_quotes("ééé", 2), "\"éé...\"");
}

TEST(Quoted, WhateverTheBytesIsValidAndWithoutControls) {
  Rng rng(7);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(rng.below(120), '\0');
    for (char& byte : bytes) byte = static_cast<char>(rng.below(256));
    const std::string text = in_quotes(bytes);
    ASSERT_TRUE(utf8_is_valid(text));
    for (const char c : text) ASSERT_GE(static_cast<unsigned char>(c), 0x20);
    ASSERT_LE(text.size(), 80 * 6 + 5u);
  }
}

}  // namespace
}  // namespace dmc
