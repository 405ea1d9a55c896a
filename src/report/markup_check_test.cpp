#include "report/markup_check.h"

#include <gtest/gtest.h>

namespace dmc::report {
namespace {

TEST(MarkupProblem, FindsWhatItIsFor) {
  EXPECT_EQ(markup_problem("<p class=\"a\">x &amp; y<br/></p><style>a > b & c</style>"), "");
  EXPECT_NE(markup_problem("<p>"), "");
  EXPECT_NE(markup_problem("<p></q>"), "");
  EXPECT_NE(markup_problem("<p a=b></p>"), "");
  EXPECT_NE(markup_problem("<p>x & y</p>"), "");
  EXPECT_NE(markup_problem("<p>1 < 2</p>"), "");
}

}  // namespace
}  // namespace dmc::report
