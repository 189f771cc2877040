// Exact nearest neighbours on a tree of axis-aligned boxes: the entry point,
// and the choice of a variant for the dimension and the machine.
//
// The points come in tree order, cut into leaves (`neighbors_forest.h`). A
// thread takes a group of queries at a time through the tree
// (`neighbors_search.h`).
#include <algorithm>
#include <cstdint>
#include <limits>
#include <new>

#include "export.h"
#include "neighbors_forest.h"
#include "neighbors_search.h"
#include "parallel.h"

// Wide vectors where the machine has them, chosen when a search starts. The
// variants fuse no operations: all of them give the same bits.
#if defined(__x86_64__) && defined(__GNUC__)
#define TGE_WIDE \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi,bmi2")))
#else
#define TGE_WIDE
#endif

namespace tge {
namespace neighbors {
namespace {

template <class T>
struct Task {
  const Search& search;
  const Forest<T>& forest;
  const Group *begin, *end;
};

template <class T, int D, bool Periodic>
TGE_INLINE void run_groups(const Task<T>& task) {
  Searcher<T, D, Periodic> searcher(task.search, task.forest);
  for (const Group* g = task.begin; g != task.end; ++g) searcher.run(*g);
}

template <class T>
using Variant = void (*)(const Task<T>&);

template <class T, int D, bool Periodic>
void run_narrow(const Task<T>& task) {
  run_groups<T, D, Periodic>(task);
}

template <class T, int D, bool Periodic>
TGE_WIDE void run_wide(const Task<T>& task) {
  run_groups<T, D, Periodic>(task);
}

bool has_wide_vectors() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

template <class T, int D, bool Periodic>
Variant<T> widest() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (has_wide_vectors()) return run_wide<T, D, Periodic>;
#endif
  return run_narrow<T, D, Periodic>;
}

template <class T>
Variant<T> variant(const Search& s) {
  if (s.box) return s.dim == 3 ? widest<T, 3, true>() : widest<T, 0, true>();
  if (s.dim == 2) return widest<T, 2, false>();
  return s.dim == 3 ? widest<T, 3, false>() : widest<T, 0, false>();
}

// Without a radius the sizes of the clouds tell the counts.
void count_all(const Search& s) {
  for (int64_t c = 0; c < s.num_clouds; ++c) {
    const int64_t points =
        s.leaf_ptr[s.cloud_leaf[c + 1]] - s.leaf_ptr[s.cloud_leaf[c]];
    const int64_t others = s.loop || points == 0 ? points : points - 1;
    for (int64_t q = s.query_ptr[c]; q < s.query_ptr[c + 1]; ++q)
      s.counts[s.query_id[q]] = std::min(others, s.k);
  }
}

template <class T>
void search(const Search& s) {
  if (s.counts && s.radius == std::numeric_limits<double>::infinity()) {
    count_all(s);
    return;
  }
  Team team(s.num_threads);
  const Forest<T> forest = plant<T>(s, team);
  const auto groups = s.itself ? group_leaves(s) : group_queries(s);
  const auto run = variant<T>(s);
  const int64_t n = groups.size(), size = 32;
  team.for_each((n + size - 1) / size, [&](int64_t task, int) {
    const Group* all = groups.data();
    run({s, forest, all + task * size, all + std::min(n, (task + 1) * size)});
  });
}

}  // namespace
}  // namespace neighbors
}  // namespace tge

// Counts the neighbours (`counts` given) or writes them to their places.
// 0: done; 2: out of memory.
TGE_EXPORT int tge_neighbors(
    int is_double, const void* pos, const int64_t* leaf_ptr,
    const int64_t* cloud_leaf, const int64_t* id, int64_t num_clouds,
    int64_t dim, int itself, const void* query, const int64_t* query_ptr,
    const int64_t* query_id, const void* box, int64_t k, double radius,
    int loop, int64_t* counts, const int64_t* offset, int64_t* out_query,
    int64_t* out_neighbor, int num_threads) {
  const tge::neighbors::Search s{
      pos, query, box, leaf_ptr, cloud_leaf, id, query_ptr, query_id,
      num_clouds, dim, k, radius, itself != 0, loop != 0, counts, offset,
      out_query, out_neighbor, num_threads};
  try {
    is_double ? tge::neighbors::search<double>(s)
              : tge::neighbors::search<float>(s);
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
