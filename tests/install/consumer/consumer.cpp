#include <lathe/lathe.h>

#include <iostream>

int main() { std::cout << lathe::version() << '\n'; }
