// Squared distances between queries and images of points and boxes, for one
// instruction set; hence no include guard.
//
// They are sums over the axes in order, of squares of `(point - query) +
// translation`, never fused, so that torch arrives at the same bits, and both
// ends of an edge at the same distance. The bounds that prune evaluate the
// very same expression at the nearest coordinates; rounding is monotone, so a
// bound never exceeds the distance of a point that it stands for.

namespace tge {
namespace neighbors {
namespace TGE_ISA {

#define TGE_FAST TGE_TARGET TGE_INLINE

// The larger one; the second if one is not a number. Compilers tend to branch.
#if defined(TGE_MORE_ISAS)
TGE_FAST float larger(float a, float b) {
  return _mm_cvtss_f32(_mm_max_ss(_mm_set_ss(a), _mm_set_ss(b)));
}

TGE_FAST double larger(double a, double b) {
  return _mm_cvtsd_f64(_mm_max_sd(_mm_set_sd(a), _mm_set_sd(b)));
}
#else
template <class T>
TGE_FAST T larger(T a, T b) {
  return a > b ? a : b;
}
#endif

// D = 0 is any dimension. A null translation is none.
template <class T, int D>
class Metric {
 public:
  explicit Metric(int64_t dim) : dim_(D ? D : dim) {}

  TGE_FAST int64_t dim() const { return D ? D : dim_; }

  // Squared distances from a query to the points of a block.
  TGE_FAST void distances(const T* y, const T* x, const T* t, T* d) const {
    if (t) return sum<true>(y, x, t, d);
    sum<false>(y, x, t, d);
  }

  // The least squared distance from the box [from, to] to a node's.
  TGE_FAST T nearest(const T* from, const T* to, const T* low,
                     const T* t) const {
    const T* high = low + dim();
    T sum = 0;
    for (int64_t a = 0; a < (D ? D : dim_); ++a) {
      const T shift = t ? t[a] : 0;
      const T before = -((high[a] - from[a]) + shift);
      const T after = (low[a] - to[a]) + shift;
      const T gap = larger(larger(before, after), T(0));
      sum += gap * gap;
    }
    return sum;
  }

  // Least squared distances from a query to `kLanes` boxes. Behind their
  // corners may be their translations.
  TGE_FAST void gaps(const T* low, const T* x, bool shifted, T* d) const {
    if (shifted) return sum_gaps<true>(low, x, d);
    sum_gaps<false>(low, x, d);
  }

  TGE_FAST T diameter(const T* box) const {  // squared
    T sum = 0;
    for (int64_t a = 0; a < dim(); ++a) {
      const T side = box[dim() + a] - box[a];
      sum += side * side;
    }
    return sum;
  }

 private:
  template <bool Shifted>
  TGE_FAST void sum(const T* y, const T* x, const T* t, T* d) const {
    if (D) {
      for (int j = 0; j < kLanes; ++j) {
        T total = 0;
        for (int a = 0; a < D; ++a)
          total += squared<Shifted>(x[a], y[a * kLanes + j], t, a);
        d[j] = total;
      }
      return;
    }
    for (int j = 0; j < kLanes; ++j) d[j] = 0;
    for (int64_t a = 0; a < dim_; ++a)
      for (int j = 0; j < kLanes; ++j)
        d[j] += squared<Shifted>(x[a], y[a * kLanes + j], t, a);
  }

  template <bool Shifted>
  TGE_FAST void sum_gaps(const T* low, const T* x, T* d) const {
    const T* high = low + dim() * kLanes;
    const T* t = high + dim() * kLanes;
    for (int j = 0; j < kLanes; ++j) d[j] = 0;
    for (int64_t a = 0; a < (D ? D : dim_); ++a) {
      T gap[kLanes];
      for (int j = 0; j < kLanes; ++j)
        gap[j] = outside<Shifted>(x[a], low, high, t, a * kLanes + j);
      // In a loop of its own: together they would branch.
      for (int j = 0; j < kLanes; ++j) d[j] += gap[j] * gap[j];
    }
  }

  template <bool Shifted>
  TGE_FAST T squared(T x, T y, const T* t, int64_t axis) const {
    T delta = y - x;
    if (Shifted) delta += t[axis];
    return delta * delta;
  }

  template <bool Shifted>
  TGE_FAST T outside(T x, const T* low, const T* high, const T* t,
                     int64_t at) const {
    T after = low[at] - x, before = high[at] - x;
    if (Shifted) {
      after += t[at];
      before += t[at];
    }
    const T gap = after > -before ? after : -before;
    return gap <= 0 ? 0 : gap;  // what is not a number stays so
  }

  const int64_t dim_;
};

}  // namespace TGE_ISA
}  // namespace neighbors
}  // namespace tge
