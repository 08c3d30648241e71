#include "lathe/base/env.h"
#include "lathe/base/str.h"
#include "lathe/kernels/tables.h"

namespace lathe {
namespace internal {
namespace {

#if defined(LATHE_KERNELS_X86)
const KernelTable& amx_kernels() {
  static const KernelTable table = [] {
    KernelTable out = kAvx512VnniKernels;
    out.isa = "amx";
    out.panel_gemm = kAmxPanelGemm;
    return out;
  }();
  return table;
}
#endif

// The names of all tables of this program, whether this machine runs them or not.
std::string known_tables() {
#if defined(LATHE_KERNELS_X86)
  return "reference, avx2, avxvnni, avx512, avx512vnni, amx";
#elif defined(LATHE_KERNELS_NEON)
  return "reference, neon";
#else
  return "reference";
#endif
}

bool is_known(std::string_view name) {
#if defined(LATHE_KERNELS_X86)
  for (const KernelTable* table :
       {&kAvx2Kernels, &kAvxVnniKernels, &kAvx512Kernels, &kAvx512VnniKernels, &amx_kernels()}) {
    if (name == table->isa) return true;
  }
#elif defined(LATHE_KERNELS_NEON)
  if (name == kNeonKernels.isa) return true;
#endif
  return name == kReferenceKernels.isa;
}

}  // namespace

std::vector<const KernelTable*> usable_kernels([[maybe_unused]] const CpuFeatures& features) {
  std::vector<const KernelTable*> tables = {&kReferenceKernels};
#if defined(LATHE_KERNELS_X86)
  if (features.avx2) tables.push_back(&kAvx2Kernels);
  if (features.avx2 && features.avxvnni) tables.push_back(&kAvxVnniKernels);
  if (features.avx2 && features.avx512) tables.push_back(&kAvx512Kernels);
  if (features.avx2 && features.avx512 && features.avx512vnni) tables.push_back(&kAvx512VnniKernels);
  if (features.avx2 && features.avx512 && features.avx512vnni && features.amx_int8) tables.push_back(&amx_kernels());
#elif defined(LATHE_KERNELS_NEON)
  if (features.neon_dotprod) tables.push_back(&kNeonKernels);
#endif
  return tables;
}

KernelChoice choose_kernels(const std::optional<std::string>& wanted, const CpuFeatures& features) {
  const std::vector<const KernelTable*> usable = usable_kernels(features);
  if (!wanted.has_value()) return {usable.back(), {}};
  std::string names;
  for (const KernelTable* table : usable) {
    if (table->isa == *wanted) return {table, {}};
    names += (names.empty() ? "" : ", ") + std::string(table->isa);
  }
  if (is_known(*wanted)) {
    return {usable.back(), str("LATHE_ISA: this processor cannot run ", *wanted, ", expected one of ", names)};
  }
  return {usable.back(), str("LATHE_ISA: unknown value '", *wanted, "', expected one of ", known_tables())};
}

namespace {

const KernelChoice& process_choice() {
  static const KernelChoice choice = choose_kernels(env_string("LATHE_ISA"), cpu_features());
  return choice;
}

}  // namespace
}  // namespace internal

const KernelTable& kernels() {
  return *internal::process_choice().table;
}

std::string_view isa_error() {
  return internal::process_choice().error;
}

std::span<const KernelTable* const> all_kernels() {
  static const std::vector<const KernelTable*> tables = internal::usable_kernels(cpu_features());
  return tables;
}

}  // namespace lathe
