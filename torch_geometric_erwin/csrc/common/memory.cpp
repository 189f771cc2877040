// Asks for large pages, before memory is first written to.
#include <cstdint>

#include "common/export.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

// Where large pages are to be had for the asking, a result costs far fewer
// page faults: a system may take longer to hand out memory in small pages
// than a kernel takes to fill it.
TGE_EXPORT void tge_use_large_pages(void* begin, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const uintptr_t page = sysconf(_SC_PAGESIZE);
  const uintptr_t at = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (at + page - 1) / page * page;
  const uintptr_t last = (at + static_cast<uintptr_t>(bytes)) / page * page;
  if (last > first)
    madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)begin;
  (void)bytes;
#endif
}
