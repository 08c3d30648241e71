// Prints the version and a greedy answer through the C++ interface: consumer_cpp MODEL PROMPT TOKENS
#include <lathe/lathe.h>

#include <iostream>
#include <string>

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  lathe::Expected<lathe::Model> model = lathe::Model::open(argv[1]);
  if (!model) {
    std::cerr << model.error().message << '\n';
    return 1;
  }
  std::cout << lathe::version() << '\n';
  const lathe::GenerateOptions options{.max_tokens = std::stol(argv[3]), .temperature = 0.0};
  const auto answer = model->generate(argv[2], options, [](const lathe::Piece& piece) {
    std::cout << piece.text;
    return true;
  });
  if (!answer) {
    std::cerr << answer.error().message << '\n';
    return 1;
  }
  std::cout << '\n';
  return 0;
}
