// What a service manager is told: one datagram to the socket that NOTIFY_SOCKET names.
#pragma once

#include <string_view>

namespace lathe::server {

// E.g. "READY=1". Does nothing when nobody listens.
void notify_service_manager(std::string_view state);

}  // namespace lathe::server
