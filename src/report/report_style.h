// The report's style sheet.
#pragma once

namespace dmc::report {

extern const char kReportStyle[];

}  // namespace dmc::report
