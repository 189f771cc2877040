// Dense layers, a tile of rows at a time: the entry point, how rows are
// divided among threads, and the choice of a variant for the machine.
#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
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

void forward(const Kernel& kernel, const Args& a) {
  const Plan plan = kernel.plan(a, false);
  Team team(useful_threads(a, plan, a.num_threads), a.num_threads);
  const int64_t scratch = Scratch::whole(plan.scratch);
  Scratch memory(Scratch::whole(plan.packed) + team.size() * scratch);
  float* const packed = memory.take(plan.packed);
  float* const spaces = memory.take(team.size() * scratch);
  pack(kernel, plan, team, packed);
  // Several for each thread, as these are not equally fast.
  const int64_t few = team.size() > 1 ? 4 * team.size() : 1;
  const int64_t tiles = std::max((a.rows + plan.tile - 1) / plan.tile,
                                 std::min(few, a.rows / kernel.tall));
  team.for_each(tiles, [&](int64_t i, int thread) {
    const int64_t begin = a.rows * i / tiles, end = a.rows * (i + 1) / tiles;
    kernel.forward(a, plan, packed, begin, end - begin,
                   spaces + thread * scratch);
  });
}

// What some rows add to the gradients that are sums.
struct Sums {
  float* parts[kNumSums];

  Sums(const Plan& plan, float* space) {
    for (int i = 0; i < kNumSums; ++i) {
      parts[i] = space;
      space += plan.sums[i];
    }
  }

  static int64_t floats(const Plan& plan) {
    int64_t all = 0;
    for (const int64_t size : plan.sums) all += size;
    return all;
  }

  void add_to(const Plan& plan, float* const* out) const {
    for (int i = 0; i < kNumSums; ++i)
      for (int64_t j = 0; j < plan.sums[i]; ++j) out[i][j] += parts[i][j];
  }
};

// Lets tasks pass one after the other.
class Turns {
 public:
  void wait(int64_t turn) {
    std::unique_lock<std::mutex> lock(mutex_);
    moved_.wait(lock, [&] { return next_ == turn; });
  }

  void pass() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++next_;
    }
    moved_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable moved_;
  int64_t next_ = 0;
};

constexpr int64_t kMostSums = 1 << 24;  // floats of all threads' sums

// The number of threads must not matter: sums depend on how rows are grouped.
int64_t count_chunks(int64_t rows) {
  const int64_t few = std::min<int64_t>(rows / 128, 8);
  return std::max<int64_t>(std::min<int64_t>(std::max(rows / 512, few), 256),
                           1);
}

void clear(const Plan& plan, float* const* sums, bool all) {
  for (int i = 0; i < kNumSums; ++i)
    if (all || (i != kWeight && i != kWeightOut))
      std::fill_n(sums[i], plan.sums[i], 0.f);
}

void backward(const Kernel& kernel, const Args& a) {
  const Plan plan = kernel.plan(a, true);
  if (a.rows == 0) return clear(plan, a.sums, true);
  const int64_t chunks = count_chunks(a.rows);
  const int64_t scratch = Scratch::whole(plan.scratch);
  const int64_t size = chunks > 1 ? Scratch::whole(Sums::floats(plan)) : 0;
  const int64_t most = std::min(chunks, kMostSums / (size + 1) + 1);
  Team team(useful_threads(a, plan, most), a.num_threads);
  Scratch memory(Scratch::whole(plan.packed) + team.size() * (scratch + size));
  float* const packed = memory.take(plan.packed);
  float* const spaces = memory.take(team.size() * scratch);
  float* const sums = memory.take(team.size() * size);
  pack(kernel, plan, team, packed);
  Turns turns;
  team.for_each(chunks, [&](int64_t chunk, int thread) {
    const Sums own(plan, sums + thread * size);
    float* const* parts = chunk ? own.parts : a.sums;
    clear(plan, parts, false);
    const int64_t begin = a.rows * chunk / chunks;
    const int64_t rows = a.rows * (chunk + 1) / chunks - begin;
    const int64_t tiles = (rows + plan.tile - 1) / plan.tile;
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t from = rows * i / tiles, to = rows * (i + 1) / tiles;
      kernel.backward(a, plan, packed, begin + from, to - from, i == 0, parts,
                      spaces + thread * scratch);
    }
    turns.wait(chunk);
    if (chunk) own.add_to(plan, a.sums);
    turns.pass();
  });
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
