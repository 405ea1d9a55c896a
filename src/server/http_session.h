// One connection: requests in, answers out, with deadlines and bounds on all of it.
#pragma once

#include <atomic>

#include "server/http_async.h"
#include "server/http_server.h"

namespace dmc::server {

// What all sessions of a server share. It outlives them.
struct HttpShared {
  HttpOptions options;
  HttpHandler handler;
  std::atomic<size_t> connections = 0, busy = 0;  // busy: a request has come and is being answered
  std::atomic<bool> draining = false;
};

// Any stream of bytes: TCP, and what tests bring.
using StreamSocket = asio::generic::stream_protocol::socket;

// Until the peer leaves, breaks a rule or is told to; never throws.
awaitable<void> serve_session(StreamSocket socket, HttpShared& shared);

}  // namespace dmc::server
