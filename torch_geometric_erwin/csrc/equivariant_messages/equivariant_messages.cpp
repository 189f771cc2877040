// Messages on scalars and vectors: the entry point, how targets and sources are
// divided among threads, and the choice of a variant for the machine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>

#include "common/export.h"
#include "common/half.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "common/scratch.h"
#include "equivariant_messages/args.h"

#define TGE_KERNELS "equivariant_messages/kernels.h"
#include "common/each_isa.h"

namespace tge {
namespace equivariant {
namespace {

// `most` keeps wider vectors out, for tests.
const Kernel& variant(int most) {
#if defined(TGE_MORE_ISAS)
  const int level = isa_level(most);
  if (level == 2) return avx512::kKernel;
  if (level == 1) return avx2::kKernel;
#endif
  (void)most;
  return portable::kKernel;
}

int useful_threads(const Args& a) {
  const double work = static_cast<double>(a.edges) * a.channels / 5e3;
  const int64_t most = std::max<int64_t>(
      std::min<int64_t>(a.parts->count, a.num_threads), 1);
  return static_cast<int>(std::min(1 + work, static_cast<double>(most)));
}

// What all threads read, in rows of whole vectors.
Shared share(const Args& a, int64_t whole, float* rows) {
  std::fill_n(rows, (a.numbers + 3) * whole, 0.f);
  for (int64_t k = 0; k < a.numbers; ++k)
    for (int64_t c = 0; c < a.channels; ++c)
      rows[k * whole + c] = a.weight[c * a.numbers + k];
  float* const scale = rows + a.numbers * whole;
  std::copy_n(a.scale, a.channels, scale);
  if (a.shift) std::copy_n(a.shift, a.channels, scale + whole);
  std::fill_n(scale + 2 * whole, a.channels, 1.f);
  return {rows, scale, scale + whole, scale + 2 * whole, whole};
}

// The gradients of each source are the sums of its rows.
void add_rows(const Args& a, Team& team, const float* rows, int64_t width) {
  team.chunks(a.sources, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t d = 0; d < 1 + a.dim; ++d) {
        float* const out = d ? a.d_vec + (i * a.dim + d - 1) * a.channels
                             : a.d_src + i * a.channels;
        std::fill_n(out, a.channels, 0.f);
        for (int64_t k = a.out_ptr[i]; k < a.out_ptr[i + 1]; ++k) {
          const float* row = rows + (a.out_rows[k] * (1 + a.dim) + d) * width;
          for (int64_t c = 0; c < a.channels; ++c) out[c] += row[c];
        }
      }
  });
}

// The gradients of weights are the sums of all parts'.
void add_sums(const Args& a, const float* sums, int64_t size, int64_t width) {
  for (int64_t k = 0; k < a.numbers + 2; ++k) {
    float* const out = k < a.numbers    ? a.d_weight + k * a.channels
                       : k == a.numbers ? a.d_scale
                                        : a.d_shift;
    if (!out) continue;
    std::fill_n(out, a.channels, 0.f);
    for (int64_t p = 0; p < a.parts->count; ++p)
      for (int64_t c = 0; c < a.channels; ++c)
        out[c] += sums[p * size + k * width + c];
  }
}

void run(const Kernel& kernel, const Args& a, bool backward) {
  const int64_t width =
      (a.channels + kernel.width - 1) / kernel.width * kernel.width;
  const int64_t size = Scratch::whole(scratch_rows(a.dim) * width);
  const int64_t common = Scratch::whole((a.numbers + 3) * width);
  const int64_t sums =
      backward ? Scratch::whole((a.numbers + 2) * width) : 0;
  const Parts& parts = *a.parts;
  const int64_t row = (1 + a.dim) * width;
  const int64_t rows = a.d_src ? parts.rows[parts.count] * row : 0;
  Team team(useful_threads(a), a.num_threads);
  Scratch memory(common + team.size() * size + parts.count * sums + rows);
  const Shared shared = share(a, width, memory.take(common));
  float* const scratch = memory.take(team.size() * size);
  float* const added = memory.take(parts.count * sums);
  float* const all_rows = memory.take(rows);
  team.for_each(parts.count, [&](int64_t p, int thread) {
    const int64_t begin = parts.first[p], end = parts.first[p + 1];
    float* const own = scratch + thread * size;
    if (!backward) return kernel.forward(a, shared, begin, end, own);
    std::fill_n(added + p * sums, sums, 0.f);
    float* const first = rows ? all_rows + parts.rows[p] * row : nullptr;
    if (rows)
      std::fill_n(first, (parts.rows[p + 1] - parts.rows[p]) * row, 0.f);
    kernel.backward(a, shared, begin, end, own, added + p * sums, first);
  });
  if (!backward) return;
  add_sums(a, added, sums, width);
  if (rows || a.d_src) add_rows(a, team, all_rows, width);
}

}  // namespace
}  // namespace equivariant
}  // namespace tge

// 0: done; 2: out of memory.
TGE_EXPORT int tge_equivariant_messages(const tge::equivariant::Args* args,
                                        int backward, int most) {
  try {
    tge::equivariant::run(tge::equivariant::variant(most), *args, backward);
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
