// One query's candidates, their distances and ids, and how the nearest of them
// are found: by counting, without a branch per candidate.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "neighbors_metric.h"

namespace tge {
namespace neighbors {

constexpr int64_t kMaxRank = 256;  // candidates that counting sorts fastest

template <class T>
T between(T low, T high) {  // in the order of the bit patterns
  Id<T> a, b;
  std::memcpy(&a, &low, sizeof(T));
  std::memcpy(&b, &high, sizeof(T));
  a += (b - a) / 2;
  std::memcpy(&low, &a, sizeof(T));
  return low;
}

// A distance; `tight` if few more points than asked for are within it.
template <class T>
struct Limit {
  T value;
  bool tight;
};

template <class T>
struct Candidates {
  std::vector<T> dist;
  std::vector<Id<T>> id;

  // A distance that at least `k` and, where that is quick to find, at most
  // `k + slack` of the first `n` distances do not exceed.
  TGE_INLINE Limit<T> within(int64_t n, int64_t k, int64_t slack) {
    const T* d = dist.data();
    T low = 0, high = 0;
    for (int64_t i = 0; i < n; ++i) high = d[i] > high ? d[i] : high;
    for (int step = 0; step < 40; ++step) {
      const T guess = step < 8 ? low + (high - low) / 2 : between(low, high);
      if (!(low < guess && guess < high)) {
        if (step < 8) step = 7;
        else break;
        continue;
      }
      Id<T> count = 0;
      for (int64_t i = 0; i < n; ++i) count += d[i] <= guess;
      (count < k ? low : high) = guess;
      if (count >= k && count <= k + slack) return {high, true};
    }
    return {high, false};
  }

  TGE_INLINE void reserve(int64_t n) {
    if (n + kLanes <= static_cast<int64_t>(dist.size())) return;
    dist.resize(2 * n + 4 * kLanes);
    id.resize(2 * n + 4 * kLanes);
  }

  // Keeps the k nearest of n candidates, sorted.
  int64_t shrink(int64_t n, int64_t k) {
    const int64_t kept = std::min(n, k);
    pairs_.resize(n);
    for (int64_t i = 0; i < n; ++i) pairs_[i] = {dist[i], id[i]};
    if (kept < n)
      std::nth_element(pairs_.begin(), pairs_.begin() + kept, pairs_.end());
    std::sort(pairs_.begin(), pairs_.begin() + kept);
    for (int64_t i = 0; i < kept; ++i) {
      dist[i] = pairs_[i].first;
      id[i] = pairs_[i].second;
    }
    return kept;
  }

  // Writes the ids of the k nearest of n candidates in order.
  TGE_INLINE void write(int64_t n, int64_t k, int64_t* to) {
    const int64_t kept = std::min(n, k);
    if (n > kept + kLanes) n = thin(n, k);
    if (n > kMaxRank) {
      shrink(n, k);
      for (int64_t i = 0; i < kept; ++i) to[i] = id[i];
      return;
    }
    rank(n);
    for (int64_t i = 0; i < n; ++i)
      if (rank_[i] < kept) to[rank_[i]] = id[i];
  }

 private:
  // Drops candidates that cannot be among the k nearest, not all of them.
  TGE_INLINE int64_t thin(int64_t n, int64_t k) {
    reserve(n + kLanes);
    const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = n; i < padded; ++i)
      dist[i] = std::numeric_limits<T>::quiet_NaN();
    const T bound = within(padded, k, 2).value;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
      const T d = dist[i];
      dist[kept] = d;
      id[kept] = id[i];
      kept += d <= bound;
    }
    return kept;
  }

  // The place of each candidate in the order: how many come before it.
  TGE_INLINE void rank(int64_t n) {
    reserve(n + kLanes);
    const T* d = dist.data();
    const Id<T>* at = id.data();
    for (int64_t start = 0; start < n; start += kLanes) {
      Id<T> before[kLanes] = {};
      for (int64_t i = 0; i < n; ++i)
        for (int j = 0; j < kLanes; ++j)
          before[j] += (d[i] < d[start + j]) |
                       ((d[i] == d[start + j]) & (at[i] < at[start + j]));
      for (int j = 0; j < kLanes; ++j) rank_[start + j] = before[j];
    }
  }

  std::vector<std::pair<T, Id<T>>> pairs_;
  Id<T> rank_[kMaxRank + kLanes];
};

}  // namespace neighbors
}  // namespace tge
