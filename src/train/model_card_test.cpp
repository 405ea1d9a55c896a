#include "train/model_card.h"

#include <gtest/gtest.h>

namespace dmc::train {
namespace {

TEST(ModelCard, SaysWhatFromWhatAndHow) {
  ModelCard card;
  card.base_model = "TinyLlama";
  card.architecture = "DmcLlamaForCausalLM";
  card.target_cr = 4.0;
  card.measured_cr = 3.971;
  card.tokens = 6'389'760;
  card.length = 2048;
  card.cr_by_head = {{1.0, 12.5}, {4.0, 3.25}};
  card.command = "dmc retrofit -m TinyLlama";
  const std::string text = to_markdown(card);
  for (const char* part : {"# TinyLlama", "DmcLlamaForCausalLM", "4.00", "3.97", "6389760", "2048",
                           "| layer | head 0 | head 1 |\n|---|---|---|\n| 0 | 1.00 | 12.50 |\n",
                           "| 1 | 4.00 | 3.25 |\n", "    dmc retrofit -m TinyLlama\n"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
}

TEST(ModelCard, SaysWhatTheMethodDoes) {
  for (const Method& method : methods()) {
    ModelCard card;
    card.method = &method;
    card.window = 37;
    card.delay = 41;
    const std::string text = to_markdown(card);
    for (const std::string_view part :
         {method.title, method.decides, method.window_counts, method.delay_counts}) {
      EXPECT_NE(text.find(part), std::string::npos) << part;
    }
    const bool window = method.window.can_differ(), delay = method.delay.can_differ();
    EXPECT_EQ(text.find("| 37 tokens |") != std::string::npos, window);
    EXPECT_EQ(text.find("| 41 tokens |") != std::string::npos, delay);
  }
}

TEST(ModelCard, AVerdictTakesThePlaceOfTheLastStep) {
  ModelCard card;
  card.measured_cr = 4.43;
  card.cr_by_head = {{9.0}};
  card.verdict = {{{"start", 1.0, 1.5, {{1.0}}}, {"retrofitted", 2.38, 1.6, {{2.5}}}},
                  "32 windows of 512 tokens",
                  "Use the retrofitted model."};
  const std::string text = to_markdown(card);
  for (const char* part :
       {"| compression ratio on held-out text | 2.38 |", "32 windows of 512 tokens",
        "| start | 1.00 | 1.5000 | 4.48 |", "| retrofitted | 2.38 | 1.6000 | 4.95 |",
        "Use the retrofitted model.", "| 0 | 2.50 |"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  EXPECT_EQ(text.find("4.43"), std::string::npos);
  EXPECT_EQ(text.find("9.00"), std::string::npos);
}

TEST(ModelCard, LeavesOutWhatIsNotKnown) {
  const std::string text = to_markdown({});
  EXPECT_EQ(text.find("layer"), std::string::npos);
  EXPECT_EQ(text.find("## Command"), std::string::npos);
}

}  // namespace
}  // namespace dmc::train
