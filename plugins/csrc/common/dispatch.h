// The instruction set of a call, and how its kernel is chosen.
#pragma once

namespace deblur {

// Each includes those before it. avx512_bf16 runs the kernels of avx512, which ask for it where
// they can multiply pairs of bfloat16.
enum class Isa { scalar, avx2, avx512, avx512_bf16 };

// The best one that the library has and the processor supports, at most what the environment
// variable DEBLUR_ISA asks for.
Isa chosen_isa();

}  // namespace deblur

// DEBLUR_DECLARE declares a kernel, a function of namespace deblur::<instruction set>, for all of
// them; DEBLUR_DISPATCH calls the one of chosen_isa().
#if defined(DEBLUR_X86)
#define DEBLUR_DISPATCH(function, ...)                                                 \
  (deblur::chosen_isa() >= deblur::Isa::avx512 ? deblur::avx512::function(__VA_ARGS__) \
   : deblur::chosen_isa() == deblur::Isa::avx2 ? deblur::avx2::function(__VA_ARGS__)   \
                                               : deblur::scalar::function(__VA_ARGS__))
#define DEBLUR_DECLARE(declaration) \
  namespace deblur {                \
  namespace scalar {                \
  declaration;                      \
  }                                 \
  namespace avx2 {                  \
  declaration;                      \
  }                                 \
  namespace avx512 {                \
  declaration;                      \
  }                                 \
  }
#else
#define DEBLUR_DISPATCH(function, ...) deblur::scalar::function(__VA_ARGS__)
#define DEBLUR_DECLARE(declaration) \
  namespace deblur {                \
  namespace scalar {                \
  declaration;                      \
  }                                 \
  }
#endif
