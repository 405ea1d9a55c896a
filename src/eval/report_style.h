// The report's style sheet.
#pragma once

namespace dmc::eval {

extern const char kReportStyle[];

}  // namespace dmc::eval
