// The web page at /.
#pragma once

#include <string>

namespace dmc::server {

const std::string& page_html();

}  // namespace dmc::server
