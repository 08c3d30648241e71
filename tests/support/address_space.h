// For tests that limit the address space to make an allocation fail.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <fstream>

namespace lathe::testing {

// Bytes of address space that this process has mapped. Sanitizers map terabytes, and then a limit cannot be lowered to
// something that only the code under test exceeds.
inline uint64_t address_space_in_use() {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

}  // namespace lathe::testing
