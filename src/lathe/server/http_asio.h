// Boost.Asio and Boost.Beast. They appear in the http_* files only.
#pragma once

// Asio 1.74 forgets to include what declares std::exchange.
// clang-format off
#include <utility>
#include <boost/asio.hpp>
// clang-format on
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

namespace lathe::server {

namespace net = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;
using Tcp = net::ip::tcp;

}  // namespace lathe::server
