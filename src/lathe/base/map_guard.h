// The table of mapped files that the SIGBUS handler of install_map_guard() (file.h) looks addresses up in. Only
// MappedFile registers in it.
#pragma once

#include <cstddef>

namespace lathe::map_guard {

// Registers [data, data + size). `path` must stay valid until remove(). When the table is full (4096 maps) the map is
// left out: a fault in it then ends the program by the signal.
void add(const std::byte* data, size_t size, const char* path);
void remove(const std::byte* data);

}  // namespace lathe::map_guard
