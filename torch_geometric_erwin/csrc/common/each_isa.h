// Includes what TGE_KERNELS names once for each instruction set, with
//   TGE_ISA: the namespace of the variant,
//   TGE_ISA_LEVEL: as `isa_level` counts,
//   TGE_TARGET: an attribute for functions.
// Hence no include guard.

#define TGE_ISA portable
#define TGE_ISA_LEVEL 0
#define TGE_TARGET
#include TGE_KERNELS
#undef TGE_ISA
#undef TGE_ISA_LEVEL
#undef TGE_TARGET

#if defined(TGE_MORE_ISAS)
#define TGE_ISA avx2
#define TGE_ISA_LEVEL 1
#define TGE_TARGET __attribute__((target("avx2,fma")))
#include TGE_KERNELS
#undef TGE_ISA
#undef TGE_ISA_LEVEL
#undef TGE_TARGET

#define TGE_ISA avx512
#define TGE_ISA_LEVEL 2
#define TGE_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#include TGE_KERNELS
#undef TGE_ISA
#undef TGE_ISA_LEVEL
#undef TGE_TARGET
#endif
