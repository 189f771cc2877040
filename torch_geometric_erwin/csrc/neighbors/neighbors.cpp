// Exact nearest neighbours on a tree of axis-aligned boxes: the entry points,
// and the choice of a variant for the dimension and the machine.
//
// The points come in tree order, cut into leaves (`neighbors/forest.h`). A
// thread takes a group of queries at a time through the tree
// (`neighbors/search.h`), and keeps what it finds (`neighbors/lists.h`). When
// all is found, its size is known, and it is copied to where it belongs.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#include "common/export.h"
#include "common/isa.h"
#include "neighbors/bits.h"
#include "neighbors/forest.h"
#include "neighbors/lattice.h"
#include "neighbors/lists.h"
#include "common/parallel.h"

namespace tge {
namespace neighbors {

template <class T>
struct Task {
  const Search& search;
  const Forest<T>& forest;
  Lists& lists;
  Store& store;
  const Group *begin, *end;
};

// Variants fuse no operations: all of them give the same bits.
template <class T>
using Variant = void (*)(const Task<T>&);

}  // namespace neighbors
}  // namespace tge

#define TGE_KERNELS "neighbors/kernels.h"
#include "common/each_isa.h"

namespace tge {
namespace neighbors {
namespace {

template <class T>
Variant<T> choose(const Search& s) {
#if defined(TGE_MORE_ISAS)
  const int level = isa_level(s.most);
  if (level == 2) return avx512::variant<T>(s.dim);
  if (level == 1) return avx2::variant<T>(s.dim);
#endif
  return portable::variant<T>(s.dim);
}

template <class T>
void search(const Search& s, Lists& lists) {
  Team team(s.num_threads);
  const Forest<T> forest = plant<T>(s, team);
  const auto groups = s.itself ? group_leaves(s) : group_queries(s);
  const auto run = choose<T>(s);
  const int64_t n = groups.size();
  const int64_t size = std::clamp<int64_t>(n / (8 * team.size()), 1, 32);
  team.for_each((n + size - 1) / size, [&](int64_t task, int thread) {
    const Group* all = groups.data();
    run({s, forest, lists, lists.stores[thread], all + task * size,
         all + std::min(n, (task + 1) * size)});
  });
  int64_t* start = lists.start.get();
  for (int64_t q = 0; q < lists.num_queries; ++q) start[q + 1] += start[q];
}

// Where results go; the numbers of cells by which positions were moved may
// be missing, and so may the shifts.
struct Output {
  int64_t *query, *neighbor, *shift;
  const int64_t *moved_query, *moved;
  int64_t sign;
};

void write_shift(const Output& out, int64_t dim, int64_t query, int64_t other,
                 const int64_t* shift, int64_t* to) {
  for (int64_t a = 0; a < dim; ++a) {
    int64_t n = shift ? shift[a] : 0;
    if (out.moved_query) n += out.moved_query[query * dim + a];
    if (out.moved) n -= out.moved[other * dim + a];
    to[a] = out.sign * n;
  }
}

void write_list(const Lists& lists, const Output& out, int64_t query) {
  const List& list = lists.list[query];
  const int64_t dim = lists.dim, start = lists.start[query];
  const int64_t n = lists.start[query + 1] - start;
  std::fill_n(out.query + start, n, query);
  std::copy_n(list.id, n, out.neighbor + start);
  if (!out.shift) return;
  int64_t* to = out.shift + start * dim;
  if (!list.shifts && !out.moved_query && !out.moved) {
    std::fill_n(to, n * dim, 0);
    return;
  }
  if (!out.moved_query && !out.moved && out.sign == 1) {
    for (int64_t i = 0; i < n; ++i)
      std::copy_n(list.shifts + list.image[i] * dim, dim, to + i * dim);
    return;
  }
  for (int64_t i = 0; i < n; ++i)
    write_shift(out, dim, query, list.id[i],
                list.shifts ? list.shifts + list.image[i] * dim : nullptr,
                to + i * dim);
}

}  // namespace
}  // namespace neighbors
}  // namespace tge

// Finds the neighbours. 0: done, and `total` of them are in `found`, which
// `tge_neighbors_free` has to be called with; 2: out of memory; 3: too many
// images are within reach.
TGE_EXPORT int tge_neighbors_find(
    int is_double, const void* pos, const int64_t* leaf_ptr,
    const int64_t* cloud_leaf, const int64_t* id, int64_t num_clouds,
    int64_t dim, int itself, const void* query, const int64_t* query_ptr,
    const int64_t* query_id, const double* vectors, const double* dual,
    const int64_t* whole, int64_t k, double radius, int loop, int shifts,
    int num_threads, int most, int64_t* total, void** found) {
  using tge::neighbors::Lists;
  const tge::neighbors::Search s{
      pos, query, leaf_ptr, cloud_leaf, id, query_ptr, query_id, vectors,
      dual, whole, num_clouds, dim, k, radius, itself != 0, loop != 0,
      shifts != 0, num_threads, most};
  try {
    std::unique_ptr<Lists> lists(
        new Lists(query_ptr[num_clouds], dim, std::max(num_threads, 1)));
    is_double ? tge::neighbors::search<double>(s, *lists)
              : tge::neighbors::search<float>(s, *lists);
    *total = lists->start[lists->num_queries];
    *found = lists.release();
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  } catch (const std::length_error&) {
    return 3;
  }
}

// Writes what was found. Positions had been moved by minus `moved` cells, and
// the shifts are for where they were before, times `sign`.
TGE_EXPORT void tge_neighbors_write(const void* found, int64_t* query,
                                    int64_t* neighbor, int64_t* shift,
                                    const int64_t* moved_query,
                                    const int64_t* moved, int64_t sign,
                                    int num_threads) {
  const auto& lists = *static_cast<const tge::neighbors::Lists*>(found);
  const tge::neighbors::Output out{query,       neighbor, shift,
                                   moved_query, moved,    sign};
  const int64_t n = lists.num_queries, size = 256;
  tge::Team(num_threads).for_each((n + size - 1) / size, [&](int64_t i, int) {
    for (int64_t q = i * size; q < std::min(n, (i + 1) * size); ++q)
      tge::neighbors::write_list(lists, out, q);
  });
}

TGE_EXPORT void tge_neighbors_free(void* found) {
  delete static_cast<tge::neighbors::Lists*>(found);
}
