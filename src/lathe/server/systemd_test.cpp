#include "lathe/server/systemd.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "support/temp_dir.h"

namespace lathe::server {
namespace {

TEST(Systemd, TellsTheSocketThatIsNamed) {
  const testing::TempDir folder;
  const std::string path = (folder.path() / "notify").string();
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ASSERT_LT(path.size(), sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);

  ASSERT_EQ(::setenv("NOTIFY_SOCKET", path.c_str(), 1), 0);
  notify_service_manager("READY=1");
  char buffer[64];
  EXPECT_EQ(std::string(buffer, static_cast<size_t>(std::max<ssize_t>(::recv(fd, buffer, sizeof buffer, 0), 0))),
            "READY=1");

  // Nobody there, or nothing that could be a socket: nothing happens.
  for (const char* name : {"/nonexistent/socket", "relative", ""}) {
    ASSERT_EQ(::setenv("NOTIFY_SOCKET", name, 1), 0);
    notify_service_manager("READY=1");
  }
  ASSERT_EQ(::unsetenv("NOTIFY_SOCKET"), 0);
  notify_service_manager("READY=1");
  EXPECT_EQ(::recv(fd, buffer, sizeof buffer, 0), -1);
  ::close(fd);
}

}  // namespace
}  // namespace lathe::server
