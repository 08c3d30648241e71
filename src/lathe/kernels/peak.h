// The limits of an instruction set, of which what kernels reach is stated as a share: multiply-adds between registers,
// with nothing to load and nothing to wait for, and reading with nothing to compute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace lathe {

enum class PeakKind {
  kFp32,  // fused multiply-adds of floats
  kInt8,  // products of bytes added up in 32 bits: tdpbssd, vpdpbusd, sdot, or vpmaddubsw + vpmaddwd + vpaddd
};

// Runs `rounds` rounds of the fastest such loop with the registers of the kernel table called `isa`, and returns the
// number of operations done (a multiply and an add are two). The table must be one that this machine can execute; a
// table without vector registers of its own gets a plain loop. Thread safe.
int64_t run_peak_loop(PeakKind kind, std::string_view isa, int64_t rounds);

// Reads all bytes once, in order: one stream without requests ahead, which memory gives fastest. The registers are
// those of the table called `isa`, as above. Returns the exclusive or of the 8-byte words; bytes behind the last whole
// 128 are not read. Thread safe.
uint64_t read_once(std::span<const std::byte> bytes, std::string_view isa);

}  // namespace lathe
