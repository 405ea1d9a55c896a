// The bytes of a connection, to requests and answers (server/http_session.h).
#include <sys/socket.h>

#include "server/http_session.h"
#include "tests/fuzz/target.h"

const dmc::fuzz::Limits dmc::fuzz::kLimits = {.seconds = 10, .megabytes = 200};

namespace {

namespace asio = boost::asio;
using dmc::server::HttpOptions;
using dmc::server::HttpRequest;

// Small, so that inputs reach them; no time passes.
HttpOptions small_limits() {
  HttpOptions options;
  options.header_bytes = 600, options.headers = 12, options.body_bytes = 300;
  options.header_time = options.body_time = options.idle_time = std::chrono::hours(1);
  return options;
}

void answer(const HttpRequest& request, const std::shared_ptr<dmc::server::Exchange>& exchange) {
  DMC_CHECK(request.body.size() <= 300 && request.path.size() <= 600);
  if (request.path.starts_with("/e")) {
    exchange->begin_events({});
    exchange->write("data: " + std::to_string(request.body.size()) + "\n\n");
    return exchange->finish();
  }
  exchange->respond({200, request.method + " " + std::to_string(request.body.size())});
}

// Reads what there is.
void drain(int from, std::string* to) {
  char part[4096];
  for (ssize_t size; (size = ::recv(from, part, sizeof part, MSG_DONTWAIT)) > 0;) {
    to->append(part, static_cast<size_t>(size));
  }
}

// What a client reads that sends `bytes` in pieces of `size`.
std::string answers(const uint8_t* bytes, size_t count, size_t size) {
  dmc::server::HttpShared shared;
  shared.options = small_limits();
  shared.handler = answer;
  std::string read;
  asio::io_context io;
  asio::local::stream_protocol::socket near(io), far(io);
  asio::local::connect_pair(near, far);
  bool over = false;
  asio::co_spawn(io, dmc::server::serve_session(std::move(near), shared),
                 [&](const std::exception_ptr& thrown) {
                   DMC_CHECK(!thrown);
                   over = true;
                 });
  for (size_t at = 0; at < count; at += size) {
    io.poll();
    ::send(far.native_handle(), bytes + at, std::min(size, count - at), MSG_NOSIGNAL);
  }
  io.poll();
  drain(far.native_handle(), &read);
  far.close();
  while (!over && io.run_one() > 0) {
  }
  DMC_CHECK(over && shared.connections == 0 && shared.busy == 0);
  return read;
}

// The parser looks at some mistakes only when the rest of the header has come.
bool same_but_for_a_refusal(const std::string& a, const std::string& b) {
  const std::string &shorter = a.size() < b.size() ? a : b, &longer = a.size() < b.size() ? b : a;
  const std::string rest = longer.starts_with(shorter) ? longer.substr(shorter.size()) : longer;
  return rest.empty() || (longer.starts_with(shorter) && rest.starts_with("HTTP/1.1 4"));
}

}  // namespace

// However the bytes are cut, the answers are the same.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 4096) return 0;
  const std::string whole = answers(data, size, 4096);
  DMC_CHECK(whole.empty() || whole.starts_with("HTTP/1."));
  for (const size_t piece : {1, 7}) {
    DMC_CHECK(same_but_for_a_refusal(answers(data, size, piece), whole));
  }
  return 0;
}

// Requests have a limit of bytes (http_server_test.cpp), so nothing grows.
std::vector<dmc::fuzz::Family> dmc::fuzz::growing_inputs() { return {}; }
