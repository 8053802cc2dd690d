#pragma once

// Large buffers hold weights, which every decode reads from end to end: with 4 KiB pages a good part of that time is
// page table walks. Advice only; where the system has no huge pages to give nothing changes.

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define GGML_NEXTN_HUGE_PAGES_MIN ((size_t) 32 << 20) // smaller buffers would only be rounded up

static inline void ggml_nextn_advise_huge_pages(void * data, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t page  = (uintptr_t) 2 << 20;
    const uintptr_t start = ((uintptr_t) data + page - 1) / page * page;
    const uintptr_t end   = ((uintptr_t) data + size) / page * page;
    if (data && size >= GGML_NEXTN_HUGE_PAGES_MIN) {
        madvise((void *) start, end - start, MADV_HUGEPAGE);
    }
#else
    (void) data;
    (void) size;
#endif
}
