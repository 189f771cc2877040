// Dense layers, a tile of rows at a time: the entry point, how rows are
// divided among threads, and the choice of a variant for the machine.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "dense/args.h"
#include "common/export.h"
#include "common/half.h"
#include "common/isa.h"
#include "common/scratch.h"
#include "common/parallel.h"

#define TGE_KERNELS "dense/kernels.h"
#include "common/each_isa.h"

namespace tge {
namespace dense {
namespace {

// `most` keeps wider vectors out, for tests.
const Kernel* variant(int most) {
#if defined(TGE_MORE_ISAS)
  const int level = isa_level(most);
  if (level == 2) return avx512::kernels();
  if (level == 1) return avx2::kernels();
#endif
  (void)most;
  return portable::kernels();
}

// Waking a thread takes as long as some million multiplications.
int useful_threads(const Args& a, const Plan& plan, int64_t most) {
  const double threads = 1 + plan.work * static_cast<double>(a.rows) / 4e6;
  most = std::max<int64_t>(std::min<int64_t>(most, a.num_threads), 1);
  return static_cast<int>(std::min(threads, static_cast<double>(most)));
}

void pack(const Kernel& kernel, const Plan& plan, Team& team, float* packed) {
  struct Task {
    const Panels* panels;
    int64_t panel;
  };
  std::vector<Task> tasks;
  for (int64_t i = 0; i < plan.count; ++i)
    for (int64_t j = 0; j * kernel.panel < plan.panels[i].width; ++j)
      tasks.push_back({plan.panels + i, j});
  const auto work = [&](int64_t i, int) {
    kernel.pack(*tasks[i].panels, tasks[i].panel, packed);
  };
  const int64_t count = static_cast<int64_t>(tasks.size());
  if (plan.packed >= 1 << 18) return team.for_each(count, work);
  for (int64_t i = 0; i < count; ++i) work(i, 0);  // as threads start
}

// Calls `fn(begin, rows, thread)` for tiles of all rows, of which all but the
// last have as many as registers hold, several times over.
template <class Fn>
void for_tiles(const Kernel& kernel, const Plan& plan, Team& team,
               int64_t rows, Fn&& fn) {
  // Several for each thread, as these are not equally fast.
  const int64_t few = team.size() > 1 ? 4 * team.size() : 1;
  const int64_t tiles = std::max((rows + plan.tile - 1) / plan.tile,
                                 std::min(few, rows / kernel.tall));
  const auto cut = [&](int64_t i) {
    const int64_t at = rows * i / tiles + kernel.tall - 1;
    return std::min(at / kernel.tall * kernel.tall, rows);
  };
  team.for_each(tiles, [&](int64_t i, int thread) {
    fn(cut(i), cut(i + 1) - cut(i), thread);
  });
}

void forward(const Kernel& kernel, const Args& a) {
  const Plan plan = kernel.plan(a, false);
  Team team(useful_threads(a, plan, a.num_threads), a.num_threads);
  const int64_t scratch = Scratch::whole(plan.scratch);
  Scratch memory(Scratch::whole(plan.packed) + team.size() * scratch);
  float* const packed = memory.take(plan.packed);
  float* const spaces = memory.take(team.size() * scratch);
  pack(kernel, plan, team, packed);
  for_tiles(kernel, plan, team, a.rows,
            [&](int64_t begin, int64_t rows, int thread) {
              kernel.forward(a, plan, packed, begin, rows,
                             spaces + thread * scratch);
            });
}

// Rows of a group: sums over rows go through memory once for each, and
// gradients of all of its rows should stay in a cache. Threads wait for each
// other twice in a group, and have more in their caches. The number of rows
// makes no difference to the sums.
int64_t group_size(const Plan& plan, int64_t rows, int threads) {
  const int64_t fit = threads > 1 ? threads * (1 << 20) : 1 << 18;
  const int64_t most = std::min<int64_t>(
      std::max<int64_t>(fit / (plan.kept + 1), 128 * threads), 4096);
  return std::min((most + kDepth - 1) / kDepth * kDepth, rows);
}

void backward(const Kernel& kernel, const Args& a) {
  const Plan plan = kernel.plan(a, true);
  Team team(useful_threads(a, plan, a.num_threads), a.num_threads);
  const int64_t size = group_size(plan, a.rows, team.size());
  const int64_t scratch = Scratch::whole(plan.scratch);
  const int64_t kept = Scratch::whole(size * plan.kept + 128);
  Scratch memory(Scratch::whole(plan.packed) + team.size() * scratch + kept);
  float* const packed = memory.take(plan.packed);
  float* const spaces = memory.take(team.size() * scratch);
  Group group{0, 0, memory.take(kept)};
  pack(kernel, plan, team, packed);
  do {
    group.rows = std::min(size, a.rows - group.begin);
    for_tiles(kernel, plan, team, group.rows,
              [&](int64_t begin, int64_t rows, int) {
                kernel.backward(a, plan, packed, group, begin, rows);
              });
    const std::vector<Total> totals = kernel.totals(a, plan, group);
    team.for_each(static_cast<int64_t>(totals.size()),
                  [&](int64_t i, int thread) {
                    kernel.accumulate(totals[i], group.rows, group.begin == 0,
                                      spaces + thread * scratch);
                  });
    group.begin += size;
  } while (group.begin < a.rows);
}

}  // namespace
}  // namespace dense
}  // namespace tge

// Whether the kernels are faster than a library's matrix products: with the
// short vectors that every x86 has, they are not.
TGE_EXPORT int tge_has_fast_dense() {
#if defined(TGE_MORE_ISAS)
  return tge::dense::variant(2) != tge::dense::variant(0);
#elif defined(__aarch64__)
  return 1;
#else
  return 0;
#endif
}

// 0: done; 2: out of memory.
TGE_EXPORT int tge_dense(const tge::dense::Args* args, int op, int backward,
                         int most) {
  try {
    const tge::dense::Kernel& kernel = tge::dense::variant(most)[op];
    backward ? tge::dense::backward(kernel, *args)
             : tge::dense::forward(kernel, *args);
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
