// While an object of this class lives, numbers below 1e-38 count as zero in this thread: states
// fade out, and arithmetic with subnormal numbers is slow.
#pragma once

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace deblur {

#if defined(__SSE__) || defined(_M_X64)
class FlushToZero {
 public:
  FlushToZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushToZero() { _mm_setcsr(before_); }

 private:
  unsigned before_;
};
#else
class FlushToZero {
 public:
  FlushToZero() {}
};
#endif

}  // namespace deblur
