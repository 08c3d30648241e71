#include "lathe/base/map_guard.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "lathe/base/file.h"

namespace lathe {
namespace {

// A slot is free when begin is 0 and taken but not yet readable when it is 1. A thread that faults inside a map keeps
// that map alive, so its slot cannot change under the handler.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<const char*> path{nullptr};
};

constexpr size_t kSlots = 4096;

// A signal handler can reach nothing but globals; lock-free atomics are all it may touch.
std::array<Slot, kSlots> g_slots;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)
static_assert(std::atomic<uintptr_t>::is_always_lock_free && std::atomic<const char*>::is_always_lock_free);

const char* path_at(uintptr_t address) {
  for (const Slot& slot : g_slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire);
    if (begin > 1 && address >= begin && address < slot.end.load(std::memory_order_relaxed)) {
      return slot.path.load(std::memory_order_relaxed);
    }
  }
  return nullptr;
}

// Appends as much of `text` as fits. No library call here is safe in a handler, strlen and memcpy included.
size_t append(std::array<char, 4608>& line, size_t used, const char* text) {
  for (; *text != '\0' && used < line.size(); ++text) {
    const auto byte = static_cast<unsigned char>(*text);
    line[used++] = byte < 0x20 || byte == 0x7f ? '?' : *text;
  }
  return used;
}

void on_bus_error(int signal, siginfo_t* info, void* /*context*/) {
  // A positive code comes from the hardware; a signal that some process sent has no address.
  const char* path = info->si_code > 0 ? path_at(reinterpret_cast<uintptr_t>(info->si_addr)) : nullptr;
  if (path != nullptr) {
    std::array<char, 4608> line;  // NOLINT(cppcoreguidelines-pro-type-member-init): PATH_MAX and the words around it
    size_t used = append(line, 0, "lathe: error: ");
    used = append(line, used, path);
    used = append(line, used, ": the file was truncated or became unreadable while mapped");
    if (used == line.size()) --used;
    line[used++] = '\n';
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), used);
    ::_exit(1);
  }

  // Somebody else's fault: die of it as if there were no handler. The raised signal waits until this returns.
  struct sigaction standard {};

  standard.sa_handler = SIG_DFL;
  ::sigaction(signal, &standard, nullptr);
  ::raise(signal);
}

}  // namespace

namespace map_guard {

void add(const std::byte* data, size_t size, const char* path) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<uintptr_t>(data);
  for (Slot& slot : g_slots) {
    uintptr_t expected = 0;
    if (!slot.begin.compare_exchange_strong(expected, 1, std::memory_order_acquire)) continue;
    slot.end.store((begin + size + page - 1) / page * page, std::memory_order_relaxed);
    slot.path.store(path, std::memory_order_relaxed);
    slot.begin.store(begin, std::memory_order_release);
    return;
  }
}

void remove(const std::byte* data) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  for (Slot& slot : g_slots) {
    if (slot.begin.load(std::memory_order_acquire) == begin) {
      slot.begin.store(0, std::memory_order_release);
      return;
    }
  }
}

}  // namespace map_guard

void install_map_guard() {
  struct sigaction action {};

  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

}  // namespace lathe
