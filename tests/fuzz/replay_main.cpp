// Runs a fuzz target over the files and folders named on the command line, each input in a heap block of its exact
// size.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "fuzz.h"

namespace {

void run(const std::string& bytes) {
  const auto block = std::make_unique<uint8_t[]>(bytes.size());
  std::memcpy(block.get(), bytes.data(), bytes.size());
  LLVMFuzzerTestOneInput(block.get(), bytes.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::filesystem::path> files;
  for (int i = 1; i < argc; ++i) {
    if (std::filesystem::is_directory(argv[i])) {
      for (const auto& entry : std::filesystem::directory_iterator(argv[i])) files.push_back(entry.path());
    } else {
      files.emplace_back(argv[i]);
    }
  }
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    std::fprintf(stderr, "usage: %s FILE|FOLDER ...: expected at least one input, found none\n", argv[0]);
    return 1;
  }
  run("");
  for (const std::filesystem::path& path : files) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) {
      std::fprintf(stderr, "%s: cannot be read\n", path.c_str());
      return 1;
    }
    std::fprintf(stderr, "%s\n", path.filename().c_str());  // the last line before a crash names the input
    run(std::string(std::istreambuf_iterator<char>(stream), {}));
  }
  std::printf("%zu inputs\n", files.size());
  return 0;
}
