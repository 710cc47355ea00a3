// Which instruction set a call uses.
#pragma once

namespace deblur {

// Each has what those before it have; avx512_bf16 runs the kernels of avx512, which ask for it
// where they can multiply pairs of bfloat16.
enum class Isa { scalar, avx2, avx512, avx512_bf16 };

// The best that the library holds and the processor has, at most what DEBLUR_ISA asks for.
Isa chosen_isa();

}  // namespace deblur

// One kernel entry for every instruction set in the library, declared in the including header as
// a function of namespace deblur::DEBLUR_TARGET.
#if defined(DEBLUR_X86)
#define DEBLUR_DISPATCH(function, ...)                                                     \
  (deblur::chosen_isa() >= deblur::Isa::avx512 ? deblur::avx512::function(__VA_ARGS__)     \
   : deblur::chosen_isa() == deblur::Isa::avx2 ? deblur::avx2::function(__VA_ARGS__)       \
                                               : deblur::scalar::function(__VA_ARGS__))
#define DEBLUR_DECLARE(declaration)     \
  namespace deblur {                    \
  namespace scalar { declaration; }     \
  namespace avx2 { declaration; }       \
  namespace avx512 { declaration; }     \
  }
#else
#define DEBLUR_DISPATCH(function, ...) deblur::scalar::function(__VA_ARGS__)
#define DEBLUR_DECLARE(declaration) \
  namespace deblur {                \
  namespace scalar { declaration; } \
  }
#endif
