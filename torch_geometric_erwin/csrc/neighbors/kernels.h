// Neighbours for one instruction set; hence no include guard.
#include "neighbors/metric.h"
#include "neighbors/pack.h"
#include "neighbors/candidates.h"
#include "neighbors/ties.h"
#include "neighbors/search.h"

namespace tge {
namespace neighbors {
namespace TGE_ISA {

template <class T, int D>
TGE_TARGET void search_groups(const Task<T>& task) {
  Searcher<T, D> searcher(task.search, task.forest, task.lists, task.store);
  for (const Group* g = task.begin; g != task.end; ++g) searcher.run(*g);
}

template <class T>
Variant<T> variant(int64_t dim) {
  if (dim == 2) return search_groups<T, 2>;
  return dim == 3 ? search_groups<T, 3> : search_groups<T, 0>;
}

}  // namespace TGE_ISA
}  // namespace neighbors
}  // namespace tge

#undef TGE_FAST
