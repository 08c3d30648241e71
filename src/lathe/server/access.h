// Access: who may talk to the server: API keys, the Host that a request names, and web pages of other origins.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/result.h"

namespace lathe::server {

class Access {
 public:
  // `keys` are the keys themselves, none: everybody may. `origins`: web origins that browsers may call from, "*": all.
  // `hosts`: names that a request's Host may have besides this machine's loopback names; only looked at with
  // `check_host`, which defends a server without keys on the loopback interface against DNS rebinding.
  Access(const std::vector<std::string>& keys,
         std::vector<std::string> origins,
         std::vector<std::string> hosts,
         bool check_host);

  // One key per line; blank lines and lines that begin with # do not count.
  static Result<std::vector<std::string>> read_keys(const std::filesystem::path& file);

  bool has_keys() const { return !digests_.empty(); }

  // The number of the key (from 1) that `authorization` ("Bearer KEY") or `x_api_key` holds, 0 without keys; nothing
  // when it is none of ours. Takes the same time for every wrong key.
  std::optional<uint64_t> find_key(std::string_view authorization, std::string_view x_api_key) const;

  // Host header with or without a port.
  bool allows_host(std::string_view host) const;

  // What Access-Control-Allow-Origin is to say; empty: nothing.
  std::string allowed_origin(std::string_view origin) const;

  // What Access-Control-Allow-Headers is to say to a page that wants to send the headers `requested` (names with commas
  // between them): those, since clients have headers of their own, or ours where it is no such list.
  static std::string allowed_headers(std::string_view requested);

  // A page of `origin` (the request's Origin header) may call. The server's own page is of the origin `host`.
  bool allows_origin(std::string_view origin, std::string_view host) const;

 private:
  std::vector<std::string> digests_;  // SHA-256 of each key
  std::vector<std::string> origins_;
  std::vector<std::string> hosts_;
  bool check_host_;
};

}  // namespace lathe::server
