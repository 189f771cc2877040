// The median of many keys, without sorting them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace tge {

// Which of equally wide buckets between `low` and `high` each key is in; a
// larger key is never in a lower bucket.
template <class T>
void assign_buckets(const T* keys, int64_t n, T low, T scale, int buckets,
                    uint16_t* bucket) {
  const T last = static_cast<T>(buckets - 1);
  for (int64_t i = 0; i < n; ++i) {
    const T place = (keys[i] - low) * scale;
    bucket[i] =
        static_cast<uint16_t>(static_cast<int>(place < last ? place : last));
  }
}

// Copies the keys in one bucket, of which there are few, and counts them.
template <class T>
int64_t pick_bucket(const T* keys, const uint16_t* bucket, int64_t n,
                    uint16_t pick, T* kept) {
  constexpr int64_t kBlock = 32;
  int64_t m = 0, i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    int any = 0;
    for (int64_t j = 0; j < kBlock; ++j) any += bucket[i + j] == pick;
    if (any == 0) continue;
    for (int64_t j = i; j < i + kBlock; ++j) {
      kept[m] = keys[j];
      m += bucket[j] == pick;
    }
  }
  for (; i < n; ++i) {
    kept[m] = keys[i];
    m += bucket[i] == pick;
  }
  return m;
}

// The rank-th smallest of n keys within [low, high], and how many are below
// it. Counts the keys in each bucket, keeps those of the bucket that holds
// the rank, and goes on in there; evenly spread keys take one round.
template <class T>
std::pair<T, int64_t> select(const T* keys, uint16_t* bucket,
                             std::vector<T>& candidates, int64_t n,
                             int64_t rank, T low, T high) {
  constexpr int kMost = 1024;
  int64_t below = 0;
  for (int round = 0; round < 4 && n > 24; ++round) {
    int buckets = 16;
    while (buckets < kMost && buckets * 8 < n) buckets *= 2;
    const T scale = static_cast<T>(buckets) / (high - low);
    if (!(high > low) || !std::isfinite(scale)) break;
    assign_buckets(keys, n, low, scale, buckets, bucket);
    int32_t counts[2][kMost];
    for (int b = 0; b < buckets; ++b) counts[0][b] = counts[1][b] = 0;
    int64_t i = 0;
    for (; i + 1 < n; i += 2) {  // two tables: no wait on the last increment
      ++counts[0][bucket[i]];
      ++counts[1][bucket[i + 1]];
    }
    if (i < n) ++counts[0][bucket[i]];
    int pick = 0;
    int64_t left = rank;
    for (int64_t c; left >= (c = counts[0][pick] + counts[1][pick]); ++pick)
      left -= c;
    below += rank - left;
    rank = left;
    const int64_t most = counts[0][pick] + counts[1][pick] + 1;
    if (static_cast<int64_t>(candidates.size()) < most)
      candidates.resize(most);
    // From the second round on in place: no key is overtaken.
    n = pick_bucket(keys, bucket, n, static_cast<uint16_t>(pick),
                    candidates.data());
    keys = candidates.data();
    if (n <= 24) break;
    low = *std::min_element(keys, keys + n);
    high = *std::max_element(keys, keys + n);
  }
  if (keys != candidates.data()) candidates.assign(keys, keys + n);
  T* kept = candidates.data();
  std::nth_element(kept, kept + rank, kept + n);
  const T key = kept[rank];
  for (int64_t i = 0; i < rank; ++i) below += kept[i] < key;
  return {key, below};
}

}  // namespace tge
