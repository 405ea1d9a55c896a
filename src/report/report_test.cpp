#include "report/report.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "report/markup_check.h"
#include "report/report_text.h"

namespace dmc::report {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Numbers chosen so that the ratios below are easy to check by hand.
ReportData sample_report() {
  Variant dense{"dense"}, live{"live 2x"};
  dense.bits_per_byte = 1.0;
  dense.accuracy = 0.5;
  dense.cr = 1.0;
  dense.cache_bytes = 4096;
  dense.decode = {{1024, 1, 100.0}, {2048, 1, 50.0}, {4096, 1, 25.0}};
  dense.slots_by_tokens = {{0, 0.0}, {4096, 4096.0}};
  dense.cr_by_head = {{1.0, 1.0}};
  dense.prompt = "int main(";
  dense.sample = ") { return 1 < 2 && true; }</pre></script>";
  live = dense;
  live.name = "live 2x";
  live.bits_per_byte = 1.02;
  live.accuracy = 0.49;
  live.cr = 2.0;
  live.cache_bytes = 2048;
  live.decode = {{1024, 1, 120.0}, {2048, 1, 90.0}};
  live.cr_by_head = {{1.5, 2.5}};
  ReportData data;
  data.title = "A <title> & more";
  data.facts = {{"parameters", "12 M"}};
  data.training_name = "live 2x";
  data.training = {{1, 1.5, 1.0, 1.1, 5000.0}, {2, 1.4, 1.9, 2.0, 5000.0}};
  data.variants = {dense, live};
  data.cache_context = 4096;
  return data;
}

nlohmann::json embedded_json(const std::string& html) {
  const std::string open = "id=\"report-data\">";
  const size_t start = html.find(open) + open.size();
  return nlohmann::json::parse(html.substr(start, html.find("</script>", start) - start));
}

TEST(Report, IsWellFormedAndSelfContained) {
  const std::string html = render_report(sample_report());
  EXPECT_EQ(markup_problem(html), "");
  for (const char* outside : {"src=", "href=", "url(", "@import", "http:", "https:"}) {
    EXPECT_EQ(html.find(outside), std::string::npos) << outside;
  }
  EXPECT_EQ(count_of(html, "<svg"), 6);  // loss, CR, heat map, slots, bytes, one batch size
}

TEST(Report, HeadlineComparesWithTheFirstVariantAtTheLongestSharedContext) {
  const std::string html = render_report(sample_report());
  EXPECT_NE(html.find(">2.0×</div><h3>smaller cache</h3>"), std::string::npos);
  EXPECT_NE(html.find(">+2.0%</div><h3>bits per byte"), std::string::npos);
  EXPECT_NE(html.find(">1.8×</div><h3>faster decode at 2k</h3>"), std::string::npos);
  EXPECT_NE(html.find(">1.9×</div><h3>compression learnt live</h3>"), std::string::npos);
}

TEST(Report, ASlowerVariantIsNotCalledFaster) {
  ReportData data = sample_report();
  for (SpeedPoint& point : data.variants[1].decode) point.tokens_per_second = 25.0;
  EXPECT_NE(render_report(data).find(">2.0×</div><h3>slower decode at 2k</h3>"), std::string::npos);
}

TEST(Report, TextFromModelsIsEscaped) {
  const std::string html = render_report(sample_report());
  EXPECT_NE(html.find("return 1 &lt; 2 &amp;&amp; true; }&lt;/pre&gt;&lt;/script&gt;"),
            std::string::npos);
  EXPECT_EQ(count_of(html, "</script>"), 1);
}

TEST(Report, EmbeddedDataIsWhatWasGiven) {
  const ReportData data = sample_report();
  const nlohmann::json json = embedded_json(render_report(data));
  EXPECT_EQ(json["title"], data.title);
  EXPECT_EQ(json["variants"].size(), 2u);
  EXPECT_EQ(json["variants"][0]["sample"], data.variants[0].sample);
  EXPECT_EQ(json["variants"][1]["cr_by_head"][0][1], 2.5);
  EXPECT_EQ(json["training"][1]["wanted_cr"], 2.0);
  EXPECT_EQ(json["variants"][1]["decode"][1]["context"], 2048);
}

TEST(Report, NothingMeasuredIsStillAReport) {
  EXPECT_EQ(markup_problem(render_report({})), "");
  ReportData data;
  data.variants = {Variant{"dense"}, Variant{"live"}};
  data.training = {TrainingPoint{}};
  const std::string html = render_report(data);
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_NE(html.find("–"), std::string::npos);
  EXPECT_TRUE(embedded_json(html)["variants"][0]["cr"].is_null());
}

TEST(Report, ZerosAndInfinitiesNeverReachTheReader) {
  for (const double odd : {0.0, kNotMeasured, kInfinity, -kInfinity}) {
    ReportData data = sample_report();
    for (Variant& variant : data.variants) {
      variant.bits_per_byte = variant.accuracy = variant.cr = variant.cache_bytes = odd;
      for (SpeedPoint& point : variant.decode) point.tokens_per_second = odd;
      for (SlotsPoint& point : variant.slots_by_tokens) point.slots = odd;
      variant.cr_by_head = {{odd, odd}};
    }
    for (TrainingPoint& point : data.training) point.loss = point.cr = point.wanted_cr = odd;
    const std::string html = render_report(data);
    EXPECT_EQ(markup_problem(html), "");
    for (const char* bad : {">nan", ">inf", ">-inf", "\"nan", "\"inf", "nan×", "inf×", "inf%"}) {
      EXPECT_EQ(html.find(bad), std::string::npos) << bad << " for " << odd;
    }
  }
}

TEST(Report, BytesThatAreNotUtf8AreMended) {
  ReportData data = sample_report();
  data.variants[0].sample = "caf\xe9 \x80";
  const std::string html = render_report(data);
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_EQ(embedded_json(html)["variants"][0]["sample"], "caf\xef\xbf\xbd \xef\xbf\xbd");
  EXPECT_NE(html.find("caf\xef\xbf\xbd \xef\xbf\xbd</pre>"), std::string::npos);
}

TEST(ReportText, SignsAreOfWhatIsShown) {
  EXPECT_EQ(signed_percent(1.012), "+1.2%");
  EXPECT_EQ(signed_percent(0.75), "−25.0%");
  EXPECT_EQ(signed_percent(0.9999), "±0.0%");
  EXPECT_EQ(points(-0.004), "−0.4 points");
  EXPECT_EQ(points(kNotMeasured), "");
  EXPECT_EQ(times(3.94), "3.9×");
  EXPECT_EQ(times(12.3), "12×");
  EXPECT_FALSE(comparable(1.0, 0.0));
}

}  // namespace
}  // namespace dmc::report
