/* What all C files share. They are C11 that gcc, clang and MSVC take, without Python's headers, and are built into one
 * library (CMakeLists.txt), which native.py loads.
 *
 * EXPORTED stands before a function that Python calls. All but native.c are built again for AVX2 and AVX-512, and have
 * VARIANT(name) for the name of each function that they export.
 */

#ifndef BRAINFUSION_NATIVE_H
#define BRAINFUSION_NATIVE_H

#if defined(_WIN32)
#define EXPORTED __declspec(dllexport)
#elif defined(__GNUC__)
#define EXPORTED __attribute__((visibility("default")))
#else
#define EXPORTED
#endif

#if defined(BRAINFUSION_AVX512)
#define VARIANT(name) name##_avx512
#elif defined(BRAINFUSION_AVX2)
#define VARIANT(name) name##_avx2
#else
#define VARIANT(name) name
#endif

#endif
