// Boost.Asio as the sessions use it: coroutines in which errors are values, and deadlines.
#pragma once

#include <boost/asio.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/beast/core/error.hpp>

#include <chrono>
#include <utility>

namespace dmc::server {

namespace asio = boost::asio;
namespace beast = boost::beast;
using asio::awaitable;
using asio::use_awaitable;
using std::chrono::milliseconds;

inline constexpr auto kTuple = asio::as_tuple(use_awaitable);

inline awaitable<void> sleep(milliseconds time) {
  asio::steady_timer timer(co_await asio::this_coro::executor, time);
  co_await timer.async_wait(use_awaitable);
}

// The error of an operation, timed_out if it took longer.
template <class Operation>
awaitable<beast::error_code> within(milliseconds time, Operation operation) {
  using namespace asio::experimental::awaitable_operators;
  const auto done = co_await (std::move(operation) || sleep(time));
  if (done.index() == 1) co_return asio::error::timed_out;
  co_return std::get<0>(std::get<0>(done));
}

}  // namespace dmc::server
