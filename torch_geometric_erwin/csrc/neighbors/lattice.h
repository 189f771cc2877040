// The images of a cloud's points: translations by whole numbers of the short
// vectors that span its lattice.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "neighbors/forest.h"

namespace tge {
namespace neighbors {

constexpr double kMostImages = 2147483648.;  // of a cell, for one group

// One cloud's lattice; none of it has vectors where nothing is periodic.
class Lattice {
 public:
  explicit Lattice(const Search& s) : s_(s), dim_(s.dim) {}

  void enter(int64_t cloud) {
    if (cloud == cloud_ || !s_.vectors) return;
    cloud_ = cloud;
    const int64_t at = cloud * dim_ * dim_;
    vectors_ = s_.vectors + at;
    dual_ = s_.dual + at;
    whole_ = s_.whole + at;
    length_.assign(dim_, 0);
    plain_ = true;
    for (int64_t i = 0; i < dim_ * dim_; ++i) {
      length_[i / dim_] += vectors_[i] * vectors_[i];
      plain_ &= whole_[i] == (i % (dim_ + 1) == 0);
    }
    periodic_ = false;
    for (double& length : length_) {
      length = std::sqrt(length);
      periodic_ |= length > 0;
    }
  }

  bool periodic() const { return periodic_; }
  bool plain() const { return plain_; }  // whether users' vectors are short

  // The sum of so many short vectors, rounded once.
  template <class T>
  void translate(const int64_t* numbers, T* to) const {
    for (int64_t a = 0; a < dim_; ++a) {
      double sum = 0;
      for (int64_t i = 0; i < dim_; ++i)
        sum += static_cast<double>(numbers[i]) * vectors_[i * dim_ + a];
      to[a] = static_cast<T>(sum);
    }
  }

  // The same translation in the user's vectors.
  void shift(const int64_t* numbers, int64_t* to) const {
    for (int64_t a = 0; a < dim_; ++a) {
      to[a] = 0;
      for (int64_t i = 0; i < dim_; ++i)
        to[a] += numbers[i] * whole_[i * dim_ + a];
    }
  }

  // Calls `fn(numbers)` for all translations, in the order of their numbers,
  // that bring points of the box [low, high] to within `reach` of [from, to],
  // and for some others.
  template <class T, class Fn>
  void for_each_near(const T* from, const T* to, const T* low, const T* high,
                     double reach, Fn&& fn) {
    first_.resize(dim_);
    last_.resize(dim_);
    double size = 0, count = 1;
    for (int64_t a = 0; a < dim_; ++a) {
      const double side = std::max(std::fabs(double(to[a]) - low[a]),
                                   std::fabs(double(high[a]) - from[a]));
      size += side * side;
    }
    for (int64_t i = 0; i < dim_; ++i) {
      double least = 0, most = 0, square = 0;
      for (int64_t a = 0; a < dim_; ++a) {
        const double d = dual_[i * dim_ + a];
        const double x = d * (double(from[a]) - high[a]);
        const double y = d * (double(to[a]) - low[a]);
        least += std::min(x, y);
        most += std::max(x, y);
        square += d * d;
      }
      const double d = std::sqrt(square);
      const double slack = reach * d + 1e-5 * d * (std::sqrt(size) + reach);
      const double first = std::ceil(least - slack);
      const double last = std::floor(most + slack);
      if (first > last) return;
      count *= last - first + 1;
      // Not a number fails, too.
      if (!(count < kMostImages && first > -1e15 && last < 1e15))
        throw std::length_error("images");
      first_[i] = static_cast<int64_t>(first);
      last_[i] = static_cast<int64_t>(last);
    }
    numbers_ = first_;
    for (;;) {
      fn(numbers_.data());
      int64_t i = dim_ - 1;
      while (i >= 0 && numbers_[i] == last_[i]) {
        numbers_[i] = first_[i];
        --i;
      }
      if (i < 0) return;
      ++numbers_[i];
    }
  }

  // Multiples of the short vectors so that at least `cells` cells make a
  // block without long edges; returns how far it reaches.
  double supercell(double cells, std::vector<int64_t>& count) const {
    count.assign(dim_, 1);
    for (double made = 1; made < cells;) {
      int64_t best = -1;
      for (int64_t i = 0; i < dim_; ++i)
        if (length_[i] > 0 && (best < 0 || count[i] * length_[i] <
                                               count[best] * length_[best]))
          best = i;
      if (best < 0) break;
      const int64_t more = 1 + count[best] / 8;  // soon even if it is a lot
      made = made / count[best] * (count[best] + more);
      count[best] += more;
    }
    double reach = 0;
    for (int64_t i = 0; i < dim_; ++i) reach += (count[i] - 1) * length_[i];
    return reach;
  }

 private:
  const Search& s_;
  const int64_t dim_;
  int64_t cloud_ = -1;
  bool periodic_ = false, plain_ = true;
  const double *vectors_ = nullptr, *dual_ = nullptr;
  const int64_t* whole_ = nullptr;
  std::vector<double> length_;
  std::vector<int64_t> first_, last_, numbers_;
};

// Translations, in the order of their shifts.
template <class T>
struct Images {
  std::vector<T> vector;       // [n, dim]
  std::vector<int64_t> shift;  // [n, dim], in the user's vectors
  int64_t home = -1;           // where nothing is shifted, if it is there

  int64_t size(int64_t dim) const { return vector.size() / dim; }

  void only_home(int64_t dim) {
    vector.assign(dim, 0);
    shift.assign(dim, 0);
    home = 0;
  }

  void clear() {
    vector.clear();
    shift.clear();
    home = -1;
  }

  void add(const Lattice& lattice, int64_t dim, const int64_t* numbers) {
    vector.resize(vector.size() + dim);
    shift.resize(shift.size() + dim);
    lattice.translate(numbers, vector.data() + vector.size() - dim);
    lattice.shift(numbers, shift.data() + shift.size() - dim);
  }

  const T* last(int64_t dim) const { return &vector[vector.size() - dim]; }

  void drop(int64_t dim) {
    vector.resize(vector.size() - dim);
    shift.resize(shift.size() - dim);
  }

  void sort(int64_t dim) {
    std::vector<int64_t> order(size(dim));
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const int64_t *x = &shift[a * dim], *y = &shift[b * dim];
      return std::lexicographical_compare(x, x + dim, y, y + dim);
    });
    const Images old = *this;
    for (size_t i = 0; i < order.size(); ++i) {
      std::copy_n(&old.vector[order[i] * dim], dim, &vector[i * dim]);
      std::copy_n(&old.shift[order[i] * dim], dim, &shift[i * dim]);
    }
  }

  void find_home(int64_t dim) {
    for (int64_t i = 0; i < size(dim); ++i) {
      const int64_t* x = &shift[i * dim];
      if (std::all_of(x, x + dim, [](int64_t n) { return n == 0; })) home = i;
    }
  }
};

}  // namespace neighbors
}  // namespace tge
