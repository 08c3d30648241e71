#include "lathe/server/systemd.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <optional>
#include <string>

#include "lathe/base/env.h"

namespace lathe::server {

void notify_service_manager(std::string_view state) {
  const std::optional<std::string> path = env_string("NOTIFY_SOCKET");
  sockaddr_un address{};
  // A path, or @ and a name in the abstract namespace.
  if (!path || (path->front() != '/' && path->front() != '@') || path->size() >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path->data(), path->size());
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path->size());
  (void)::sendto(fd, state.data(), state.size(), MSG_NOSIGNAL, reinterpret_cast<const sockaddr*>(&address), length);
  (void)::close(fd);
}

}  // namespace lathe::server
