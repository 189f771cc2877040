// Loads points, turned to an orientation.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "tree/split.h"
#include "tree/args.h"

namespace tge {

// Coordinates beyond this have squares that single precision cannot hold.
constexpr double kFarthest = 1e18;

template <class T>
class Turn {
 public:
  Turn(const TgeTree& args, int orientation)
      : dim_(args.dim),
        rows_(args.box_rows),
        way_(args.orientations[orientation]) {
    if (args.is_principal) way_.sine = 0;  // directions turn, not the cloud
    if (way_.shift != 0.0) box_ = static_cast<const T*>(args.box);
    still_ = way_.sine == 0.0 && box_ == nullptr;
    if (!args.matrices || way_.sine == 0.0) return;
    const double* matrix = args.matrices + orientation * dim_ * dim_;
    matrix_.assign(matrix, matrix + dim_ * dim_);
  }

  // Fills points[begin, end); points of more dimensions than they can carry
  // go to `turned`. `ptr` are the offsets of the clouds from `first_cloud` on,
  // `origins` what is the origin of each, or null.
  // Returns a sum of zeros, but NaN if a coordinate is not finite or too large.
  template <class P>
  T load(const T* coords, int64_t begin, int64_t end,
         const std::vector<int64_t>& ptr, int64_t first_cloud,
         const T* origins, P* points, T* turned) const {
    constexpr int kAxes = Space<T, P>::kAxes;
    if (kAxes > 0 && still_) return copy<kAxes>(coords, begin, end, points);
    int64_t cloud =
        std::upper_bound(ptr.begin(), ptr.end(), begin) - ptr.begin() - 1;
    T own[4], zero = 0;
    for (int64_t i = begin; i < end; ++i) {
      while (i >= ptr[cloud + 1]) ++cloud;
      T* x = turned ? turned + i * dim_ : own;
      if (origins && way_.sine != 0.0) {
        // Far from the origin, turning would cost precision.
        T near[4];
        T* from = dim_ <= 4 ? near : x;
        for (int a = 0; a < dim_; ++a)
          from[a] = coords[i * dim_ + a] - origins[cloud * dim_ + a];
        turn(from, first_cloud + cloud, x);
      } else {
        turn(coords + i * dim_, first_cloud + cloud, x);
      }
      for (int a = 0; a < dim_; ++a) zero += x[a] * kToLimit * 0;
      if constexpr (kAxes > 0) std::copy_n(x, kAxes, points[i].x);
      points[i].id = static_cast<int32_t>(i);
    }
    return zero;
  }

 private:
  static constexpr T kToLimit =
      static_cast<T>(std::numeric_limits<T>::max() / kFarthest);

  template <int kAxes, class P>
  static T copy(const T* coords, int64_t begin, int64_t end, P* points) {
    T zero = 0;
    if constexpr (kAxes > 0)
      for (int64_t i = begin; i < end; ++i) {
        for (int a = 0; a < kAxes; ++a) {
          points[i].x[a] = coords[i * kAxes + a];
          zero += coords[i * kAxes + a] * kToLimit * 0;
        }
        points[i].id = static_cast<int32_t>(i);
      }
    return zero;
  }

  // Every step is one rounded operation, as in torch.
  void turn(const T* from, int64_t cloud, T* x) const {
    if (from != x) std::copy_n(from, dim_, x);
    if (box_ != nullptr) {
      const T* box = box_ + cloud * rows_ * dim_;
      rows_ == 1 ? shift(box, x) : shift_along(box, from, x);
    }
    if (way_.sine == 0.0) return;
    if (!matrix_.empty()) return multiply(x);
    const T c = static_cast<T>(way_.cosine), s = static_cast<T>(way_.sine);
    for (int a = 0; a + 1 < dim_; ++a) {
      const T u = x[a], v = x[a + 1];
      x[a] = c * u - s * v;
      x[a + 1] = s * u + c * v;
    }
  }

  void multiply(T* x) const {
    T few[4];
    std::vector<T> many(dim_ > 4 ? dim_ : 0);
    T* to = dim_ > 4 ? many.data() : few;
    for (int a = 0; a < dim_; ++a) {
      to[a] = x[0] * matrix_[a];
      for (int b = 1; b < dim_; ++b) to[a] += x[b] * matrix_[b * dim_ + a];
    }
    std::copy_n(to, dim_, x);
  }

  void shift(const T* box, T* x) const {
    for (int a = 0; a < dim_; ++a) {
      x[a] += static_cast<T>(way_.shift) * box[a];
      if (x[a] >= box[a]) x[a] -= box[a];
    }
  }

  // Along the vectors of a lattice, by coordinates along these.
  void shift_along(const T* vectors, const T* from, T* x) const {
    const T by = static_cast<T>(way_.shift);
    const T* dual = vectors + dim_ * dim_;
    for (int k = 0; k < dim_; ++k) {
      T along = from[0] * dual[k * dim_];
      for (int a = 1; a < dim_; ++a) along += from[a] * dual[k * dim_ + a];
      const T step = along + by >= 1 ? by - 1 : by;
      for (int a = 0; a < dim_; ++a) x[a] += step * vectors[k * dim_ + a];
    }
  }

  const int dim_, rows_;
  Orientation way_;
  std::vector<T> matrix_;   // [dim, dim] or empty
  const T* box_ = nullptr;  // null where the cloud is not shifted
  bool still_;
};

}  // namespace tge
