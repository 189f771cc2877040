// What a search has found: for each query numbers of points, and of the
// translations of its group, as 32-bit integers, in its thread's memory.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace tge {
namespace neighbors {

// Memory that is handed out in pieces, and freed all at once.
template <class T>
class Arena {
 public:
  T* take(int64_t n) {
    if (n > left_) {
      left_ = n > kChunk ? n : kChunk;
      chunks_.emplace_back(new T[left_]);
      next_ = chunks_.back().get();
    }
    T* taken = next_;
    next_ += n;
    left_ -= n;
    return taken;
  }

 private:
  static constexpr int64_t kChunk = 1 << 17;
  std::vector<std::unique_ptr<T[]>> chunks_;
  T* next_ = nullptr;
  int64_t left_ = 0;
};

// The neighbours of a query, and, where there are `shifts`, which of these each
// of them has.
struct List {
  const int32_t *id, *image;
  const int64_t* shifts;
};

struct Store {
  Arena<int32_t> id;
  Arena<int64_t> shifts;
};

struct Lists {
  Lists(int64_t queries, int64_t dim, int threads)
      : num_queries(queries),
        dim(dim),
        list(new List[queries]),
        start(new int64_t[queries + 1]),
        stores(threads) {
    start[0] = 0;
  }

  const int64_t num_queries, dim;
  std::unique_ptr<List[]> list;      // by the queries' numbers
  std::unique_ptr<int64_t[]> start;  // at first each one's size behind it
  std::vector<Store> stores;         // one for each thread
};

}  // namespace neighbors
}  // namespace tge
