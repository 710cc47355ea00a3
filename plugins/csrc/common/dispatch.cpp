// Detects the instruction sets of the processor, and the functions of deblur_cpu.h that belong to
// no op.
#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "../deblur_cpu.h"

#if defined(DEBLUR_X86) && defined(_MSC_VER)
#error "tell the instruction sets of the processor apart for this compiler"
#endif

// GCC 9 does not know the name "avx512bf16".
#if defined(__clang__) || __GNUC__ >= 10
#define DEBLUR_ASKS_FOR_BF16
#endif

namespace deblur {

static const char* const kNames[] = {"scalar", "avx2", "avx512", "avx512_bf16"};

static Isa best_isa() {
#if defined(DEBLUR_X86)
  // These also check that the operating system saves the registers.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#if defined(DEBLUR_ASKS_FOR_BF16)
  if (avx2 && avx512 && __builtin_cpu_supports("avx512bf16")) return Isa::avx512_bf16;
#endif
  if (avx2 && avx512) return Isa::avx512;
  if (avx2) return Isa::avx2;
#endif
  return Isa::scalar;
}

// The environment is read in every call, so that a process may change it; the processor is
// asked once.
Isa chosen_isa() {
  static const Isa best = best_isa();
  const char* wish = getenv("DEBLUR_ISA");
  if (wish == nullptr) return best;
  for (int isa = 0; isa < static_cast<int>(best); ++isa)
    if (strcmp(wish, kNames[isa]) == 0) return static_cast<Isa>(isa);
  return best;
}

}  // namespace deblur

int32_t deblur_version(void) { return DEBLUR_CPU_VERSION; }

const char* deblur_instruction_set(void) {
  return deblur::kNames[static_cast<int>(deblur::chosen_isa())];
}

const char* deblur_instruction_sets(void) {
#if defined(DEBLUR_X86)
  return "scalar avx2 avx512 avx512_bf16";
#else
  return "scalar";
#endif
}

const char* deblur_error_text(int32_t code) {
  switch (code) {
    case DEBLUR_OK:
      return "no error";
    case DEBLUR_BAD_SIZE:
      return "a size is negative, zero or odd where it must not be, or too large";
    case DEBLUR_NO_TENSOR:
      return "a required tensor is missing";
    case DEBLUR_BAD_ARGUMENT:
      return "an attribute has a value that the op does not have";
    case DEBLUR_NO_MEMORY:
      return "out of memory";
    case DEBLUR_BAD_NUMBER:
      return "a pixel number lies outside the images";
    default:
      return "unknown error";
  }
}
