// One split along a principal axis, as `ops/build_tree/principal.py` makes it.
//
// Points are ordered by their projections on a direction that turns along with
// them: the axis of the largest variance or, in other orientations, one between
// this axis and that of the second largest. An axis points to where the farther
// points are, as the third moment tells. What rounding alone would decide is
// taken to be equal: projections are rounded to a part of their extent and then
// ordered as `TieOrder` does, variances and moments that hardly differ do not.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <vector>

#include "tree/select.h"
#include "tree/split.h"

namespace tge {

// By which angle directions are turned from the first axis to the second.
struct Plane {
  double cosine, sine;
};

constexpr double kFlat = 1e-10;  // of the variance: no difference
constexpr double kEven = 1e-6;   // of the third absolute moment: no skewness
constexpr double kThin = 1e-9;   // of the spread: no extent
constexpr double kDone = 1e-13;  // of the variance: diagonal, but for rounding
constexpr double kLine = 1e-6;   // of the variance: no second axis
constexpr int kSweeps = 12;

// Some numbers, as a rule few.
class Numbers {
 public:
  explicit Numbers(int n) : many_(n > kFew ? n : 0) {
    std::fill_n(data(), n, 0.);
  }
  double* data() { return many_.empty() ? few_ : many_.data(); }
  double& operator[](int i) { return data()[i]; }

 private:
  static constexpr int kFew = 16;
  double few_[kFew];
  std::vector<double> many_;
};

// Turns a symmetric matrix of trace one into its eigenvalues on the diagonal,
// and `v` into the eigenvectors in columns, by Jacobi's method.
template <int D>
void find_eigenvectors(int dim, double* a, double* v) {
  const int d = D ? D : dim;
  for (int i = 0; i < d * d; ++i) {
    if (!(std::fabs(a[i]) > kFlat)) a[i] = 0;
    v[i] = i % (d + 1) == 0;
  }
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    bool turned = false;
    for (int p = 0; p < d; ++p)
      for (int q = p + 1; q < d; ++q) {
        const double apq = a[p * d + q];
        if (!(std::fabs(apq) > kDone)) continue;
        turned = true;
        const double half = (a[q * d + q] - a[p * d + p]) / (2 * apq);
        double t = 1 / (std::fabs(half) + std::sqrt(half * half + 1));
        if (half < 0) t = -t;
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        a[p * d + p] -= t * apq;
        a[q * d + q] += t * apq;
        a[p * d + q] = a[q * d + p] = 0;
        for (int r = 0; r < d; ++r) {
          if (r != p && r != q) {
            const double x = a[r * d + p], y = a[r * d + q];
            a[r * d + p] = a[p * d + r] = c * x - s * y;
            a[r * d + q] = a[q * d + r] = s * x + c * y;
          }
          const double x = v[r * d + p], y = v[r * d + q];
          v[r * d + p] = c * x - s * y;
          v[r * d + q] = s * x + c * y;
        }
      }
    if (!turned) return;
  }
}

// The eigenvector of the largest eigenvalue of a matrix of trace one, by
// squaring it until nothing else is left; false where another one is as large
// or nearly so. Takes less than half as long as finding them all.
template <int D>
bool find_first_eigenvector(const double* matrix, double* axis) {
  constexpr int kSquarings = 8;
  constexpr double kSmall = 1e-8;  // what a squaring leaves nothing of
  double a[D * D];
  for (int i = 0; i < D * D; ++i)
    a[i] = std::fabs(matrix[i]) > kFlat ? matrix[i] : 0;
  double rest = 1;
  for (int k = 0; k < kSquarings && rest > kSmall; ++k) {
    double square[D * D], trace = 0;
    for (int i = 0; i < D; ++i)
      for (int j = 0; j <= i; ++j) {
        double sum = 0;
        for (int r = 0; r < D; ++r) sum += a[i * D + r] * a[r * D + j];
        square[i * D + j] = square[j * D + i] = sum;
      }
    for (int i = 0; i < D; ++i) trace += square[i * (D + 1)];
    rest = 1 - trace;
    for (int i = 0; i < D * D; ++i) a[i] = square[i] / trace;
  }
  if (!(rest <= kSmall)) return false;
  int column = 0;
  for (int i = 1; i < D; ++i)
    if (a[i * (D + 1)] > a[column * (D + 1)]) column = i;
  double length = 0;
  for (int i = 0; i < D; ++i) length += a[i * D + column] * a[i * D + column];
  length = std::sqrt(length);
  for (int i = 0; i < D; ++i) axis[i] = a[i * D + column] / length;
  return true;
}

// The largest eigenvalue but one that was chosen; the first of some that do
// not differ.
inline int largest(int dim, const double* a, int but) {
  double most = -1;
  for (int i = 0; i < dim; ++i)
    if (i != but) most = std::max(most, a[i * dim + i]);
  int i = 0;
  while (i == but || a[i * dim + i] < most - kFlat) ++i;
  return i;
}

template <class S>
class PrincipalSplit {
 public:
  using T = typename S::Scalar;
  using P = typename S::Point;
  static constexpr int kAxes = S::kAxes;
  static constexpr int64_t kBlock = 4096;  // points whose sums are one part
  static constexpr int kBits = sizeof(T) == 4 ? 22 : 32;

  PrincipalSplit(const S& space, const Plane& plane, Scratch<T>& scratch)
      : space_(space),
        plane_(plane),
        scratch_(scratch),
        mean_(space.dim()),
        axis_(2 * space.dim()) {}

  // Splits `from` into the first `num_left` points of the order and the
  // others. `each(n, fn)` calls fn(i) for all i < n, maybe with many threads.
  template <class Each>
  void split(const P* from, P* to, int64_t n, int64_t num_left, Each&& each) {
    mark(from, n, num_left, each);
    const uint8_t* goes_left = scratch_.goes_left.data();
    if (n <= kBlock) return move(from, 0, n, goes_left, to, to + num_left);
    const int64_t blocks = num_blocks(n);
    std::vector<int64_t> lefts(blocks + 1, 0);
    each(blocks, [&](int64_t b) {
      lefts[b + 1] = std::accumulate(goes_left + b * kBlock,
                                     goes_left + end(b, n), int64_t(0));
    });
    for (int64_t b = 0; b < blocks; ++b) lefts[b + 1] += lefts[b];
    each(blocks, [&](int64_t b) {
      move(from, b * kBlock, end(b, n), goes_left, to + lefts[b],
           to + num_left + b * kBlock - lefts[b]);
    });
  }

  // Writes the numbers of n points in their order.
  void sort(const P* from, int64_t n, int32_t* order) {
    if (n == 2 && plane_.sine == 0) {
      const int first = sorts_first(from[0], from[1]) ? 0 : 1;
      order[0] = from[first].id;
      order[1] = from[1 - first].id;
      return;
    }
    find_keys(from, n, alone);
    auto& rank = scratch_.ties;
    rank.resize(n);
    std::iota(rank.begin(), rank.end(), 0);
    const T* keys = scratch_.keys.data();
    const TieOrder<S> ties{space_, from};
    std::sort(rank.begin(), rank.end(), [&](int32_t i, int32_t j) {
      return keys[i] != keys[j] ? keys[i] < keys[j] : ties(i, j);
    });
    for (int64_t i = 0; i < n; ++i) order[i] = from[rank[i]].id;
  }

  static constexpr auto alone = [](int64_t n, auto&& fn) {
    for (int64_t i = 0; i < n; ++i) fn(i);
  };

 private:
  static int64_t num_blocks(int64_t n) { return (n + kBlock - 1) / kBlock; }
  static int64_t end(int64_t block, int64_t n) {
    return std::min(n, (block + 1) * kBlock);
  }
  int dim() const { return kAxes ? kAxes : space_.dim(); }

  // Without a branch, as which way a point goes is a coin toss.
  static void move(const P* from, int64_t begin, int64_t end,
                   const uint8_t* goes_left, P* left, P* right) {
    for (int64_t i = begin; i < end; ++i) {
      const auto mask = static_cast<uintptr_t>(goes_left[i]) - 1;
      const auto l = reinterpret_cast<uintptr_t>(left);
      const auto r = reinterpret_cast<uintptr_t>(right);
      *reinterpret_cast<P*>(l ^ ((l ^ r) & mask)) = from[i];
      left += goes_left[i];
      right += !goes_left[i];
    }
  }

  // Of two points, which have no skewness.
  bool sorts_first(const P& one, const P& other) {
    double square = 0;
    for (int a = 0; a < dim(); ++a) {
      axis_[a] = static_cast<double>(space_.at(other, a)) - space_.at(one, a);
      square += axis_[a] * axis_[a];
    }
    const double length = std::sqrt(square);
    if (!(length > 0)) return true;
    for (int a = 0; a < dim(); ++a) axis_[a] /= length;
    return sign({}, axis_.data()) > 0;
  }

  template <class Each>
  void mark(const P* from, int64_t n, int64_t num_left, Each&& each) {
    const auto [low, high] = find_keys(from, n, each);
    auto& goes_left = scratch_.goes_left;
    goes_left.resize(n);
    const T* keys = scratch_.keys.data();
    T key = low;
    int64_t below = 0;
    if (low < high) {
      if (static_cast<int64_t>(scratch_.buckets.size()) < n)
        scratch_.buckets.resize(n);
      std::tie(key, below) = select(keys, scratch_.buckets.data(),
                                    scratch_.candidates, n, num_left, low,
                                    high);
    }
    for (int64_t i = 0; i < n; ++i) goes_left[i] = keys[i] < key;
    if (num_left > below) settle(from, n, key, num_left - below);
  }

  // Marks some of the points at the cut.
  void settle(const P* from, int64_t n, T key, int64_t count) {
    auto& ties = scratch_.ties;
    ties.clear();
    for (int64_t i = 0; i < n; ++i)
      if (scratch_.keys[i] == key) ties.push_back(static_cast<int32_t>(i));
    if (count < static_cast<int64_t>(ties.size()))
      std::nth_element(ties.begin(), ties.begin() + count, ties.end(),
                       TieOrder<S>{space_, from});
    for (int64_t i = 0; i < count; ++i) scratch_.goes_left[ties[i]] = 1;
  }

  // Fills keys, the rounded projections; returns the least and the largest.
  template <class Each>
  std::pair<T, T> find_keys(const P* from, int64_t n, Each&& each) {
    if (static_cast<int64_t>(scratch_.keys.size()) < n) {
      scratch_.keys.resize(n);
      scratch_.along.resize(n);
    }
    T* keys = scratch_.keys.data();
    double* t = scratch_.along.data();
    const Part all = project(from, n, t, each);
    if (!(all.high - all.low > kThin * spread_)) {
      std::fill_n(keys, n, T(0));
      return {T(0), T(0)};
    }
    int exponent;
    std::frexp(all.high - all.low, &exponent);
    const double scale = std::ldexp(sign_, kBits - exponent);
    constexpr double kWhole = 6755399441055744.;  // has no digits to the right
    const auto round = [scale](double x) {
      return static_cast<T>(x * scale + kWhole - kWhole);
    };
    each(num_blocks(n), [&](int64_t b) {
      for (int64_t i = b * kBlock; i < end(b, n); ++i) keys[i] = round(t[i]);
    });
    const T low = round(all.low), high = round(all.high);
    return {std::min(low, high), std::max(low, high)};
  }

  // What is known of some projections.
  struct Part {
    double skew, absolute, low, high;
  };

  // Fills `t` with projections on the node's direction, or on its opposite
  // if `sign_` says so.
  template <class Each>
  Part project(const P* from, int64_t n, double* t, Each&& each) {
    sign_ = 1;
    if (!find_axes(from, n, each)) {
      std::fill_n(t, n, 0.);
      return {};
    }
    Part all = project(from, n, axis_.data(), t, each);
    sign_ = sign(all, axis_.data());
    if (plane_.sine == 0) return all;
    double* second = axis_.data() + dim();
    const double other = sign(project(from, n, second, t, each), second);
    for (int a = 0; a < dim(); ++a)
      axis_[a] = sign_ * plane_.cosine * axis_[a] +
                 other * plane_.sine * second[a];
    sign_ = 1;
    return project(from, n, axis_.data(), t, each);
  }

  // False where all points are one.
  template <class Each>
  bool find_axes(const P* from, int64_t n, Each&& each) {
    const int d = dim();
    Numbers matrix(d * d), vectors(d * d);
    const double trace = covariance(from, n, matrix.data(), each);
    spread_ = std::sqrt(trace / static_cast<double>(n));
    if (!(trace > 0)) return false;
    for (int i = 0; i < d * d; ++i) matrix[i] /= trace;
    if constexpr (kAxes > 1)
      if (plane_.sine == 0 &&
          find_first_eigenvector<kAxes>(matrix.data(), axis_.data()))
        return true;
    find_eigenvectors<kAxes>(d, matrix.data(), vectors.data());
    const int first = largest(d, matrix.data(), -1);
    const int second = d > 1 ? largest(d, matrix.data(), first) : first;
    const bool flat = matrix[second * (d + 1)] > kLine;
    for (int a = 0; a < d; ++a) {
      axis_[a] = vectors[a * d + first];
      axis_[d + a] = flat ? vectors[a * d + second] : 0;
    }
    return true;
  }

  // Finds the mean and the sums of products about it; returns their trace.
  template <class Each>
  double covariance(const P* from, int64_t n, double* matrix, Each&& each) {
    const int d = dim(), width = d + d * (d + 1) / 2;
    Numbers origin(d), sums(width);  // any origin nearby serves
    for (int a = 0; a < d; ++a) origin[a] = space_.at(from[n / 2], a);
    if (n <= kBlock) {
      add_products(from, 0, n, origin.data(), sums.data());
    } else {
      auto& parts = scratch_.parts;
      parts.assign(num_blocks(n) * width, 0.);
      each(num_blocks(n), [&](int64_t b) {
        add_products(from, b * kBlock, end(b, n), origin.data(),
                     &parts[b * width]);
      });
      for (size_t i = 0; i < parts.size(); ++i) sums[i % width] += parts[i];
    }
    const double share = 1 / static_cast<double>(n);
    double trace = 0;
    for (int a = 0, i = d; a < d; ++a) {
      mean_[a] = origin[a] + sums[a] * share;
      for (int b = 0; b <= a; ++b, ++i)
        matrix[a * d + b] = matrix[b * d + a] =
            sums[i] - sums[a] * sums[b] * share;
      trace += matrix[a * d + a];
    }
    return trace;
  }

  void add_products(const P* from, int64_t begin, int64_t end,
                    const double* origin, double* sums) const {
    const int d = dim();
    Numbers x(d);
    if constexpr (kAxes > 0) {
      constexpr int kWidth = kAxes + kAxes * (kAxes + 1) / 2;
      double sum[kWidth] = {}, x[kAxes];  // in registers
      for (int64_t i = begin; i < end; ++i) {
        for (int a = 0, j = kAxes; a < kAxes; ++a) {
          x[a] = space_.at(from[i], a) - origin[a];
          sum[a] += x[a];
          for (int b = 0; b <= a; ++b) sum[j++] += x[a] * x[b];
        }
      }
      for (int j = 0; j < kWidth; ++j) sums[j] += sum[j];
      return;
    }
    for (int64_t i = begin; i < end; ++i)
      for (int a = 0, j = d; a < d; ++a) {
        x[a] = space_.at(from[i], a) - origin[a];
        sums[a] += x[a];
        for (int b = 0; b <= a; ++b) sums[j++] += x[a] * x[b];
      }
  }

  template <class Each>
  Part project(const P* from, int64_t n, const double* axis, double* t,
               Each&& each) {
    if (n <= kBlock) return project_block(from, 0, n, axis, t);
    std::vector<Part> parts(num_blocks(n));
    each(num_blocks(n), [&](int64_t b) {
      parts[b] = project_block(from, b * kBlock, end(b, n), axis, t);
    });
    Part all = parts[0];
    for (size_t b = 1; b < parts.size(); ++b) {
      all.skew += parts[b].skew;
      all.absolute += parts[b].absolute;
      all.low = std::min(all.low, parts[b].low);
      all.high = std::max(all.high, parts[b].high);
    }
    return all;
  }

  Part project_block(const P* from, int64_t begin, int64_t end,
                     const double* axis, double* t) {
    const int d = dim();
    const double* mean = mean_.data();
    Part all{0, 0, HUGE_VAL, -HUGE_VAL};
    for (int64_t i = begin; i < end; ++i) {
      double x = (space_.at(from[i], 0) - mean[0]) * axis[0];
      for (int a = 1; a < d; ++a)
        x += (space_.at(from[i], a) - mean[a]) * axis[a];
      t[i] = x;
      const double cube = x * x * x;
      all.skew += cube;
      all.absolute += std::fabs(cube);
      all.low = x < all.low ? x : all.low;
      all.high = x > all.high ? x : all.high;
    }
    return all;
  }

  // Which way an axis points.
  double sign(const Part& all, const double* axis) const {
    if (std::fabs(all.skew) > kEven * all.absolute)
      return all.skew < 0 ? -1 : 1;
    double most = 0;
    for (int a = 0; a < dim(); ++a) most = std::max(most, std::fabs(axis[a]));
    int a = 0;
    while (std::fabs(axis[a]) < most - kFlat) ++a;
    return axis[a] < 0 ? -1 : 1;
  }

  const S& space_;
  const Plane& plane_;
  Scratch<T>& scratch_;
  Numbers mean_, axis_;
  double spread_ = 0, sign_ = 1;
};

}  // namespace tge
