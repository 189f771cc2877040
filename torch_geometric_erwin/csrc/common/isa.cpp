// Tells which variant of a kernel runs, for tests that are about one of them.
#include "common/isa.h"

#include "common/export.h"

TGE_EXPORT int tge_isa_level(int most) {
#if defined(TGE_MORE_ISAS)
  return isa_level(most);
#else
  (void)most;
  return 0;
#endif
}
