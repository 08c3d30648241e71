// The arithmetic limit of an instruction set: multiply-adds between registers, with nothing to load and nothing to wait
// for. What kernels reach is stated as a share of it.
#pragma once

#include <cstdint>
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

}  // namespace lathe
