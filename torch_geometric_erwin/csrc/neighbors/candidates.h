// One query's candidates, their distances and places, and how the nearest of
// them are found: by counting, without a branch per candidate. For one
// instruction set; hence no include guard.

namespace tge {
namespace neighbors {
namespace TGE_ISA {

constexpr int64_t kMaxRank = 256;  // candidates that counting sorts fastest

template <class T>
TGE_FAST T between(T low, T high) {  // in the order of the bit patterns
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

// `Before` tells which of two places comes first where distances are equal.
template <class T, class Before>
class Candidates {
 public:
  std::vector<T> dist;
  std::vector<Id<T>> slot;

  explicit Candidates(Before before) : before_(before) {}

  // A distance that at least `k` and, where that is quick to find, at most
  // `k + slack` of the first `n` distances do not exceed.
  TGE_FAST Limit<T> within(int64_t n, int64_t k, int64_t slack) {
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

  TGE_FAST void reserve(int64_t n) {
    if (n + kLanes <= static_cast<int64_t>(dist.size())) return;
    dist.resize(2 * n + 4 * kLanes);
    slot.resize(2 * n + 4 * kLanes);
  }

  // Keeps the k nearest of n candidates, sorted.
  TGE_TARGET int64_t shrink(int64_t n, int64_t k) {
    const int64_t kept = std::min(n, k);
    take_pairs(n);
    const auto less = [this](const Pair& a, const Pair& b) {
      return a.first < b.first ||
             (a.first == b.first && before_(a.second, b.second));
    };
    if (kept < n)
      std::nth_element(pairs_.begin(), pairs_.begin() + kept, pairs_.end(),
                       less);
    std::sort(pairs_.begin(), pairs_.begin() + kept, less);
    put_pairs(kept);
    return kept;
  }

  // Sorts the k nearest of n candidates to the front; returns how many.
  TGE_FAST int64_t sort(int64_t n, int64_t k) {
    const int64_t kept = std::min(n, k);
    if (n > kept + kLanes) n = thin(n, k);
    n <= kMaxRank ? rank(n) : sort_many(n);
    const T* d = dist.data();
    for (int64_t i = 1; i < n; ++i)
      if (d[i] == d[i - 1]) i = settle(i - 1, n);
    return kept;
  }

 private:
  using Pair = std::pair<T, Id<T>>;

  void take_pairs(int64_t n) {
    pairs_.resize(n);
    for (int64_t i = 0; i < n; ++i) pairs_[i] = {dist[i], slot[i]};
  }

  void put_pairs(int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      dist[i] = pairs_[i].first;
      slot[i] = pairs_[i].second;
    }
  }

  void sort_many(int64_t n) {
    take_pairs(n);
    std::sort(pairs_.begin(), pairs_.end());
    put_pairs(n);
  }

  // Orders candidates from `i` on that are equally far; returns the last.
  int64_t settle(int64_t i, int64_t n) {
    int64_t end = i + 1;
    while (end < n && dist[end] == dist[i]) ++end;
    std::sort(slot.begin() + i, slot.begin() + end, before_);
    return end - 1;
  }

  // Drops candidates that cannot be among the k nearest, not all of them.
  TGE_FAST int64_t thin(int64_t n, int64_t k) {
    reserve(n + kLanes);
    const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;
    for (int64_t i = n; i < padded; ++i)
      dist[i] = std::numeric_limits<T>::quiet_NaN();
    const T bound = within(padded, k, 2).value;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
      const T d = dist[i];
      dist[kept] = d;
      slot[kept] = slot[i];
      kept += d <= bound;
    }
    return kept;
  }

  // Puts each candidate where so many others come before it.
  TGE_FAST void rank(int64_t n) {
    reserve(n + kLanes);
    T* d = dist.data();
    for (int j = 0; j < kLanes; ++j)
      d[n + j] = std::numeric_limits<T>::quiet_NaN();
    for (int64_t start = 0; start < n; start += kLanes) {
      Id<T> count[kLanes] = {};
      const int64_t end = std::min(start + kLanes, n);
      for (int64_t i = 0; i < start; ++i)
        for (int j = 0; j < kLanes; ++j) count[j] += d[i] <= d[start + j];
      for (int64_t i = start; i < end; ++i)
        for (int j = 0; j < kLanes; ++j)
          count[j] += (d[i] < d[start + j]) |
                      ((d[i] == d[start + j]) & (i < start + j));
      for (int64_t i = end; i < n; ++i)
        for (int j = 0; j < kLanes; ++j) count[j] += d[i] < d[start + j];
      for (int j = 0; j < kLanes; ++j) rank_[start + j] = count[j];
    }
    Id<T>* places = slot.data();
    for (int64_t i = 0; i < n; ++i) {
      sorted_[rank_[i]] = d[i];
      places_[rank_[i]] = places[i];
    }
    std::memcpy(d, sorted_, n * sizeof(T));
    std::memcpy(places, places_, n * sizeof(Id<T>));
  }

  const Before before_;
  std::vector<Pair> pairs_;
  T sorted_[kMaxRank];
  Id<T> rank_[kMaxRank + kLanes], places_[kMaxRank];
};

}  // namespace TGE_ISA
}  // namespace neighbors
}  // namespace tge
