#include "lathe/base/cpu.h"

#include <array>
#include <cstring>
#include <string_view>

#include "lathe/base/file.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace lathe {
namespace {

#if defined(__x86_64__)

struct Cpuid {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// All zero where the processor has no such leaf.
Cpuid cpuid(uint32_t leaf, uint32_t subleaf) {
  Cpuid out;
  if (__get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx) == 0) return {};
  return out;
}

bool bit(uint32_t word, int index) {
  return ((word >> index) & 1u) != 0;
}

// The register states that the operating system saves; zero without XGETBV.
uint64_t saved_states(const Cpuid& leaf1) {
  if (!bit(leaf1.ecx, 27)) return 0;  // OSXSAVE
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low | (static_cast<uint64_t>(high) << 32);
}

// Linux gives the tile registers only to a process that asks for them: with all its threads, those to come and those
// that run already, and what it forks, but not what it executes.
bool request_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;
  return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

CpuFeatures detect() {
  CpuFeatures out;
  const Cpuid leaf1 = cpuid(1, 0);
  const Cpuid leaf7 = cpuid(7, 0);
  const Cpuid leaf7_1 = leaf7.eax >= 1 ? cpuid(7, 1) : Cpuid{};
  const Cpuid extended = cpuid(0x80000001u, 0);
  const uint64_t states = saved_states(leaf1);
  const bool ymm = (states & 0x6) == 0x6;
  const bool zmm = (states & 0xe6) == 0xe6;
  const bool tiles = (states & 0x60000) == 0x60000;

  // What -march=x86-64-v3 -maes -mpclmul lets a compiler use, not AVX2 alone.
  const bool level1 = bit(leaf1.ecx, 1) && bit(leaf1.ecx, 12) && bit(leaf1.ecx, 22) && bit(leaf1.ecx, 23) &&
                      bit(leaf1.ecx, 25) && bit(leaf1.ecx, 28) &&
                      bit(leaf1.ecx, 29);  // PCLMUL, FMA, MOVBE, POPCNT, AES, AVX, F16C
  const bool level7 = bit(leaf7.ebx, 3) && bit(leaf7.ebx, 5) && bit(leaf7.ebx, 8);  // BMI1, AVX2, BMI2
  out.avx2 = ymm && level1 && level7 && bit(extended.ecx, 5);                       // LZCNT
  out.avx512 = out.avx2 && zmm && bit(leaf7.ebx, 16) && bit(leaf7.ebx, 17) && bit(leaf7.ebx, 28) &&
               bit(leaf7.ebx, 30) && bit(leaf7.ebx, 31);  // F, DQ, CD, BW, VL
  out.avx512vnni = out.avx512 && bit(leaf7.ecx, 11);
  out.avx512bf16 = out.avx512 && bit(leaf7_1.eax, 5);
  out.avxvnni = out.avx2 && bit(leaf7_1.eax, 4);
  out.amx_int8 = out.avx512 && tiles && bit(leaf7.edx, 24) && bit(leaf7.edx, 25) && request_amx();
  return out;
}

std::string brand() {
  if (cpuid(0x80000000u, 0).eax < 0x80000004u) return {};
  std::array<char, 49> text{};
  for (uint32_t i = 0; i < 3; ++i) {
    const Cpuid part = cpuid(0x80000002u + i, 0);
    const std::array<uint32_t, 4> words{part.eax, part.ebx, part.ecx, part.edx};
    std::memcpy(text.data() + size_t{16} * i, words.data(), 16);
  }
  return text.data();
}

#elif defined(__aarch64__)

CpuFeatures detect() {
  CpuFeatures out;
  const unsigned long capabilities = ::getauxval(AT_HWCAP);
  out.neon = (capabilities & HWCAP_ASIMD) != 0;
  out.neon_dotprod = out.neon && (capabilities & HWCAP_ASIMDDP) != 0;
  return out;
}

std::string brand() {
  return {};
}

#else

CpuFeatures detect() {
  return {};
}

std::string brand() {
  return {};
}

#endif

std::string trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(" \t") - begin + 1));
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string cpu_model_name() {
  if (std::string name = trimmed(brand()); !name.empty()) return name;
  const Result<std::string> info = read_file("/proc/cpuinfo");
  if (info) {
    for (const std::string_view key : {std::string_view("model name"), std::string_view("CPU part")}) {
      const size_t at = info->find(key);
      if (at == std::string::npos) continue;
      const size_t colon = info->find(':', at);
      const size_t end = info->find('\n', at);
      if (colon != std::string::npos && colon < end) {
        return trimmed(std::string_view(*info).substr(colon + 1, end - colon - 1));
      }
    }
  }
  return "unknown processor";
}

}  // namespace lathe
