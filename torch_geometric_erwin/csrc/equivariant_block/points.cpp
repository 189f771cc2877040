// Vectors point by point: what lies between the products of matrices of a block
// on scalars and vectors. The formulas are in
// `ops/equivariant_block/reference.py`.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include "common/export.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "equivariant_block/args.h"

#define TGE_KERNELS "equivariant_block/kernels.h"
#include "common/each_isa.h"

namespace tge {
namespace points {
namespace {

constexpr int64_t kChunk = 256;  // points of a task: sums depend on it

using Run = void (*)(const Args&, int, int64_t, int64_t, float*);

// `most` keeps wider vectors out, for tests.
Run variant(int most) {
#if defined(TGE_MORE_ISAS)
  const int level = isa_level(most);
  if (level == 2) return avx512::run;
  if (level == 1) return avx2::run;
#endif
  (void)most;
  return portable::run;
}

void run(const Args& a, int op, Run points) {
  const int64_t chunks = (a.points + kChunk - 1) / kChunk;
  const int64_t width = 2 * a.heads * a.vectors;
  const bool adds = op == kAssembleBackward;
  std::vector<float> sums(adds ? chunks * width : 0);
  const int64_t most = std::min<int64_t>(chunks / 2, a.num_threads);
  Team team(static_cast<int>(std::max<int64_t>(most, 1)), a.num_threads);
  team.for_each(chunks, [&](int64_t c, int) {
    points(a, op, c * kChunk, std::min((c + 1) * kChunk, a.points),
           sums.data() + (adds ? c * width : 0));
  });
  if (!adds) return;
  std::fill_n(a.d_pos_vec, width, 0.f);
  for (int64_t c = 0; c < chunks; ++c)
    for (int64_t k = 0; k < width; ++k)
      a.d_pos_vec[k] += sums[c * width + k];
}

}  // namespace
}  // namespace points
}  // namespace tge

// 0: done; 2: out of memory.
TGE_EXPORT int tge_points(const tge::points::Args* args, int op, int most) {
  try {
    tge::points::run(*args, op, tge::points::variant(most));
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
