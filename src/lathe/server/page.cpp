#include "lathe/server/page.h"

#include <string>
#include <string_view>

#include "lathe/base/sha256.h"
#include "lathe/base/str.h"

namespace lathe::server {

// Made from page/index.html by page/embed.cmake.
extern const unsigned char kPageBytes[];
extern const unsigned long kPageSize;

namespace {

std::string_view page_bytes() {
  return {reinterpret_cast<const char*>(kPageBytes), kPageSize};
}

std::string page_etag() {
  Hasher hasher(Hasher::Kind::kSha256);
  hasher.update(page_bytes());
  return str('"', hasher.hex_digest().substr(0, 16), '"');
}

}  // namespace

Reply page_reply(std::string_view if_none_match) {
  static const std::string etag = page_etag();
  Reply reply{.content_type = "text/html; charset=utf-8", .body = std::string(page_bytes())};
  // Nothing from elsewhere, and nobody may put it into a frame.
  reply.headers = {{"Cache-Control", "no-cache"},
                   {"ETag", etag},
                   {"Content-Security-Policy",
                    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
                    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
                   {"Referrer-Policy", "no-referrer"}};
  if (if_none_match == etag) {
    reply.status = 304;
    reply.body.clear();
  }
  return reply;
}

}  // namespace lathe::server
