// Encoding speed on a text: one thread, the vocabulary in memory. The program answers one line at a time, so that a
// script can take turns with another implementation (tools/bench_tokenizer.py does):
//
//   tokenizer_bench MODEL_FOLDER TEXT_FILE
//     encode   ->  <seconds> <tokens>     the whole file in one call
//     lines    ->  <seconds> <tokens>     one call for each line, as requests come
//     ids FILE ->  <seconds> <tokens>     as encode; the ids go to FILE, one 32-bit integer each
//
// Ids must decode to the text before anything is timed.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include "lathe/base/file.h"
#include "lathe/base/str.h"
#include "lathe/tokenizer/tokenizer.h"

namespace lathe {
namespace {

struct Timed {
  double seconds = 0.0;
  std::vector<int32_t> ids;
};

template <class Work>
Timed timed(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  Timed out{0.0, work()};
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return out;
}

std::vector<int32_t> encode_lines(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> out;
  while (!text.empty()) {
    const size_t newline = text.find('\n');
    const size_t size = newline == std::string_view::npos ? text.size() : newline + 1;
    const std::vector<int32_t> ids = tokenizer.encode(text.substr(0, size), AddedTokens::kRecognise);
    out.insert(out.end(), ids.begin(), ids.end());
    text.remove_prefix(size);
  }
  return out;
}

Status write_ids(const std::string& path, const std::vector<int32_t>& ids) {
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof(ids[0])));
  file.close();
  if (!file) return Error{Errc::kIo, str(path, ": expected to write ", ids.size(), " ids, could not")};
  return {};
}

Status serve(const char* folder, const char* file) {
  LATHE_TRY(const Tokenizer tokenizer, Tokenizer::open(folder));
  LATHE_TRY(const std::string text, read_file(file));
  const auto encode = [&] { return tokenizer.encode(text, AddedTokens::kRecognise); };
  if (tokenizer.decode_bytes(encode(), false) != text) {
    return Error{Errc::kInternal, str(file, ": expected the ids to decode to the text, found another text")};
  }
  std::string command;
  while (std::getline(std::cin, command)) {
    const bool write = command.starts_with("ids ");
    if (!write && command != "encode" && command != "lines") {
      return Error{Errc::kInvalidArgument, str("expected encode, lines or ids FILE, found ", quoted(command))};
    }
    const Timed run = command == "lines" ? timed([&] { return encode_lines(tokenizer, text); }) : timed(encode);
    if (write) LATHE_TRY(write_ids(command.substr(4), run.ids));
    std::cout << str(run.seconds, " ", run.ids.size()) << std::endl;
  }
  return {};
}

}  // namespace
}  // namespace lathe

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: tokenizer_bench MODEL_FOLDER TEXT_FILE\n", stderr);
    return 2;
  }
  const lathe::Status status = lathe::serve(argv[1], argv[2]);
  if (status) return 0;
  std::fprintf(stderr, "tokenizer_bench: %s\n", status.error().message.c_str());
  return 1;
}
