// StandInHub: starts tests/hub/stand_in_hub.py with a scenario and ends it with the object.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "lathe/base/json.h"
#include "lathe/base/str.h"
#include "lathe/formats/hub.h"
#include "support/temp_dir.h"

namespace lathe::testing {

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline void spit(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
inline constexpr const char* kOtherCommit = "fedcba9876543210fedcba9876543210fedcba98";

class StandInHub {
 public:
  // `scenario` is the JSON text that stand_in_hub.py describes.
  explicit StandInHub(const std::string& scenario) {
    spit(dir_ / "scenario.json", scenario);
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0) return;
    const std::string script = std::string(LATHE_SOURCE_DIR) + "/tests/hub/stand_in_hub.py";
    const std::string scenario_path = (dir_ / "scenario.json").string();
    const std::string folder = dir_.path().string();
    child_ = ::fork();
    if (child_ == 0) {
      ::dup2(in[0], 0);
      ::dup2(out[1], 1);
      ::execlp("python3",
               "python3",
               script.c_str(),
               "--scenario",
               scenario_path.c_str(),
               "--dir",
               folder.c_str(),
               static_cast<char*>(nullptr));
      ::_exit(127);
    }
    ::close(in[0]);
    ::close(out[1]);
    stdin_ = in[1];
    std::string line;
    char byte = 0;
    while (::read(out[0], &byte, 1) == 1 && byte != '\n') line += byte;
    ::close(out[0]);
    const Result<Json> ports = parse_json(line);
    if (!ports || ports->find("hub") == nullptr) return;
    hub_port_ = ports->find("hub")->as_int();
    cdn_port_ = ports->find("cdn")->as_int();
  }

  StandInHub(const StandInHub&) = delete;
  StandInHub& operator=(const StandInHub&) = delete;

  ~StandInHub() {
    if (stdin_ >= 0) ::close(stdin_);
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }

  bool started() const { return hub_port_ > 0; }

  std::string address(std::string_view scheme = "http") const { return str(scheme, "://127.0.0.1:", hub_port_); }

  std::string cdn_address() const { return str("http://localhost:", cdn_port_); }

  // An own cache beside the scenario, and waits that a test can afford.
  HubSettings settings() const {
    HubSettings settings;
    settings.cache = cache();
    settings.endpoint = address();
    settings.retries = 3;
    settings.connect_timeout_s = 5.0;
    settings.stall_timeout_s = 10.0;
    settings.retry_base_delay_s = 0.01;
    return settings;
  }

  std::filesystem::path cache() const { return dir_ / "cache"; }

  std::filesystem::path repo() const { return cache() / "models--acme--tiny"; }

  std::filesystem::path snapshot(std::string_view commit = kCommit) const { return repo() / "snapshots" / commit; }

  const TempDir& dir() const { return dir_; }

  std::string truth(const std::string& file, const std::string& revision = "main") const {
    return slurp(dir_ / "truth" / revision / file);
  }

  struct Seen {
    std::string server;
    std::string method;
    std::string path;
    std::string range;          // empty: none
    std::string authorization;  // empty: none
  };

  // The requests so far whose path contains `part`.
  std::vector<Seen> seen(std::string_view part = "") const {
    std::vector<Seen> out;
    std::ifstream in(dir_ / "log.jsonl");
    for (std::string line; std::getline(in, line);) {
      const Result<Json> entry = parse_json(line);
      if (!entry) continue;
      const auto text = [&](const char* key) {
        const Json* value = entry->find(key);
        return value != nullptr && value->is_string() ? value->as_string() : std::string();
      };
      Seen one{text("server"), text("method"), text("path"), text("range"), text("authorization")};
      if (one.path.find(part) != std::string::npos) out.push_back(std::move(one));
    }
    return out;
  }

  // Everything below blobs/ and snapshots/ that is not a partial file, as sorted relative paths.
  std::vector<std::string> final_names() const {
    std::vector<std::string> out;
    for (const char* folder : {"blobs", "snapshots", "refs"}) {
      std::error_code error;
      for (const auto& entry : std::filesystem::recursive_directory_iterator(repo() / folder, error)) {
        const std::string name = entry.path().lexically_relative(repo()).string();
        if (!entry.is_directory() && !name.ends_with(".lathe-partial")) out.push_back(name);
      }
    }
    return out;
  }

 private:
  TempDir dir_;
  pid_t child_ = -1;
  int stdin_ = -1;
  int64_t hub_port_ = 0;
  int64_t cdn_port_ = 0;
};

}  // namespace lathe::testing
