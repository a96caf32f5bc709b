/* What this library is, and what the processor can do: native.py asks before it uses anything else. */

#include <stdint.h>

#include "native.h"

#if defined(_MSC_VER) && defined(_M_X64) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif

/* Of the sources, by CMakeLists.txt: what native.py compares. */
#ifndef BRAINFUSION_VERSION
#define BRAINFUSION_VERSION "unknown"
#endif
#ifndef BRAINFUSION_SOURCES
#define BRAINFUSION_SOURCES "unknown"
#endif

EXPORTED const char *brainfusion_version(void) { return BRAINFUSION_VERSION; }

EXPORTED const char *brainfusion_sources(void) { return BRAINFUSION_SOURCES; }

/* 2: AVX-512 (F, CD, BW, DQ, VL); 1: AVX2; 0: neither, or another kind of processor. The operating system has to keep
 * the wide registers, too. */
EXPORTED int32_t brainfusion_vectors(void)
{
#if defined(_MSC_VER) && defined(_M_X64) && !defined(__clang__)
    int info[4];
    __cpuid(info, 0);
    if (info[0] < 7) return 0;
    __cpuid(info, 1);
    if (!(info[2] & (1 << 27)) || !(info[2] & (1 << 28))) return 0;
    const unsigned long long kept = _xgetbv(0);
    if ((kept & 0x6) != 0x6) return 0;
    __cpuidex(info, 7, 0);
    if (!(info[1] & (1 << 5))) return 0;
    const unsigned wanted = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;
    return (kept & 0xe6) == 0xe6 && ((unsigned)info[1] & wanted) == wanted ? 2 : 1;
#elif defined(__GNUC__) && defined(__x86_64__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2")) return 0;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl")
               ? 2
               : 1;
#else
    return 0;
#endif
}
