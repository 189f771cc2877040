// What is done to vectors point by point. Included as `common/vector.h` is,
// and after it.

namespace tge {
namespace points {
namespace TGE_ISA {

using namespace vectors::TGE_ISA;

// Dimensions and vectors of a head, where compilers know them: not zero.
template <int D, int U>
struct Sizes {
  int64_t dim, u, both, row, all;

  explicit Sizes(const Args& a)
      : dim(D ? D : a.dim),
        u(U ? U : a.vectors),
        both(a.scalars + u),
        row(both + dim * u),
        all(3 * a.heads * u) {}
};

// For few numbers, which `memcpy` takes long for.
TGE_VECTOR void copy(const float* from, int64_t n, float* to) {
  for (int64_t k = 0; k < n; k += kWidth)
    store_part(to + k, load_part(from + k, n - k), n - k);
}

// One over the root mean square of a point's vectors.
TGE_VECTOR float unit_of(const Args& a, int64_t i) {
  const int64_t n = a.dim * a.channels;
  const float* vec = a.vec + i * n;
  V squares{};
  for (int64_t k = 0; k < n; k += kWidth) {
    const V x = load_part(vec + k, n - k);
    squares = fma(x, x, squares);
  }
  return 1.f / std::sqrt(sum(squares) / static_cast<float>(n) + a.eps_norm);
}

// The gradient of vectors by way of their length, of whose `unit` it is
// `along`, plus the residual.
TGE_VECTOR void add_along(const Args& a, int64_t i, float along, float unit) {
  const int64_t n = a.dim * a.channels;
  const V factor = splat(-along * unit * unit / static_cast<float>(n));
  for (int64_t k = 0, at = i * n; k < n; k += kWidth, at += kWidth)
    store_part(a.d_vec + at,
               fma(factor, load_part(a.vec + at, n - k),
                   load_part(a.residual + at, n - k)), n - k);
}

template <int D, int U>
TGE_VECTOR void assemble(const Args& a, int64_t i) {
  const Sizes<D, U> s(a);
  const float unit = unit_of(a, i), *offset = a.offset + i * s.dim;
  for (int64_t part = 0; part < 3 * a.heads; ++part) {
    const int64_t h = part / 3, r = part % 3;
    const float* from = a.qkv + (i * 3 * a.heads + part) * s.both;
    const float* lifted = a.lifted + i * s.dim * s.all + part * s.u;
    const float* weight =
        r < 2 ? a.pos_vec + (2 * h + r) * s.u : from + a.scalars;
    float* to = a.rows + (i * 3 * a.heads + part) * s.row;
    copy(from, s.both, to);
    to += s.both;
    for (int64_t d = 0; d < s.dim; ++d)
      for (int64_t k = 0; k < s.u; ++k)
        to[d * s.u + k] = unit * lifted[d * s.all + k] + offset[d] * weight[k];
  }
}

template <int D, int U>
TGE_VECTOR void assemble_backward(const Args& a, int64_t i,
                                  float* d_pos_vec) {
  const Sizes<D, U> s(a);
  const float unit = unit_of(a, i), *offset = a.offset + i * s.dim;
  float sums[D ? D : 1] = {}, *d_offset = D ? sums : a.d_offset + i * s.dim;
  float along = 0.f;
  for (int64_t part = 0; part < 3 * a.heads; ++part) {
    const int64_t h = part / 3, r = part % 3;
    const float* grad = a.d_rows + (i * 3 * a.heads + part) * s.row;
    const float* row = a.rows + (i * 3 * a.heads + part) * s.row;
    const float* weight =
        r < 2 ? a.pos_vec + (2 * h + r) * s.u : row + a.scalars;
    float* to = a.d_qkv + (i * 3 * a.heads + part) * s.both;
    float* d_lifted = a.d_lifted + i * s.dim * s.all + part * s.u;
    float* d_weight = r < 2 ? d_pos_vec + (2 * h + r) * s.u : to + a.scalars;
    copy(grad, s.both, to);
    grad += s.both;
    row += s.both;
    for (int64_t k = 0; k < s.u; ++k) {
      const float w = weight[k];
      float total = 0.f;
      for (int64_t d = 0; d < s.dim; ++d) {
        const float g = grad[d * s.u + k];
        along += g * (row[d * s.u + k] - offset[d] * w);
        d_lifted[d * s.all + k] = g * unit;
        d_offset[d] += g * w;
        total += g * offset[d];
      }
      d_weight[k] += total;
    }
  }
  for (int d = 0; d < D; ++d) a.d_offset[i * D + d] += sums[d];
  add_along(a, i, along, unit);
}

template <int D, int U>
TGE_VECTOR void relative(const Args& a, int64_t i) {
  const Sizes<D, U> s(a);
  const float* offset = a.offset + i * s.dim;
  for (int64_t h = 0; h < a.heads; ++h) {
    const float* from = a.out + (i * a.heads + h) * s.row;
    float* to = a.sums + (i * a.heads + h) * s.both;
    float* turn = a.turn + (i * s.dim * a.heads + h) * s.u;
    copy(from, a.scalars, to);
    for (int64_t k = 0; k < s.u; ++k) {
      const float weight = from[a.scalars + k];
      float square = 0.f;
      for (int64_t d = 0; d < s.dim; ++d) {
        const float x = from[s.both + d * s.u + k] - offset[d] * weight;
        turn[d * a.heads * s.u + k] = x;
        square += x * x;
      }
      to[a.scalars + k] = std::sqrt(square + a.eps);
    }
  }
}

template <int D, int U>
TGE_VECTOR void relative_backward(const Args& a, int64_t i) {
  const Sizes<D, U> s(a);
  const float* offset = a.offset + i * s.dim;
  float sums[D ? D : 1] = {}, *d_offset = D ? sums : a.d_offset + i * s.dim;
  std::fill_n(d_offset, s.dim, 0.f);
  for (int64_t h = 0; h < a.heads; ++h) {
    const float* weight = a.out + (i * a.heads + h) * s.row + a.scalars;
    const float* from = a.d_sums + (i * a.heads + h) * s.both;
    const float* length = a.sums + (i * a.heads + h) * s.both;
    const int64_t first = (i * s.dim * a.heads + h) * s.u;
    float* to = a.d_out + (i * a.heads + h) * s.row;
    copy(from, a.scalars, to);
    for (int64_t k = 0; k < s.u; ++k) {
      const float pull = from[a.scalars + k] / length[a.scalars + k];
      const float w = weight[k];
      float d_weight = 0.f;
      for (int64_t d = 0; d < s.dim; ++d) {
        const int64_t at = first + d * a.heads * s.u + k;
        const float g = a.d_turn[at] + pull * a.turn[at];
        to[s.both + d * s.u + k] = g;
        d_weight -= g * offset[d];
        d_offset[d] -= g * w;
      }
      to[a.scalars + k] = d_weight;
    }
  }
  for (int d = 0; d < D; ++d) a.d_offset[i * D + d] = sums[d];
}

TGE_VECTOR void hide(const Args& a, int64_t i) {
  const int64_t n = a.number;
  const V unit = splat(unit_of(a, i));
  for (int64_t k = 0; k < n; k += kWidth) {
    float* hidden = a.hidden + i * a.dim * n + k;
    V square = splat(a.eps);
    for (int64_t d = 0; d < a.dim; ++d, hidden += n) {
      const V x = load_part(hidden, n - k) * unit;
      store_part(hidden, x, n - k);
      square = fma(x, x, square);
    }
    store_part(a.lengths + i * n + k, root(square), n - k);
  }
}

// Gradients of gated vectors come in `product`; those of hidden ones, times
// `unit`, replace them.
TGE_VECTOR void hide_backward(const Args& a, int64_t i) {
  const int64_t n = a.number;
  const float unit = unit_of(a, i);
  V along{};
  for (int64_t k = 0; k < n; k += kWidth) {
    const float* hidden = a.hidden + i * a.dim * n + k;
    float* grad = a.product + i * a.dim * n + k;
    // All are longer; behind the last one nothing is divided by zero.
    const V length =
        largest(load_part(a.lengths + i * n + k, n - k), splat(a.eps));
    const V pull = load_part(a.d_lengths + i * n + k, n - k) / length;
    for (int64_t d = 0; d < a.dim; ++d, hidden += n, grad += n) {
      const V x = load_part(hidden, n - k);
      const V g = fma(x, pull, load_part(grad, n - k));
      along = fma(g, x, along);
      store_part(grad, g * unit, n - k);
    }
  }
  add_along(a, i, sum(along), unit);
}

TGE_VECTOR void gate(const Args& a, int64_t i) {
  const int64_t n = a.number;
  for (int64_t k = 0; k < n; k += kWidth) {
    const V factor = load_part(a.gate + i * n + k, n - k);
    for (int64_t d = 0, at = i * a.dim * n + k; d < a.dim; ++d, at += n)
      store_part(a.product + at, load_part(a.hidden + at, n - k) * factor,
                 n - k);
  }
}

TGE_VECTOR void gate_backward(const Args& a, int64_t i) {
  const int64_t n = a.number;
  for (int64_t k = 0; k < n; k += kWidth) {
    const V factor = load_part(a.gate + i * n + k, n - k);
    V d_gate{};
    for (int64_t d = 0, at = i * a.dim * n + k; d < a.dim; ++d, at += n) {
      const V g = load_part(a.product + at, n - k);
      d_gate = fma(g, load_part(a.hidden + at, n - k), d_gate);
      store_part(a.product + at, g * factor, n - k);
    }
    store_part(a.d_gate + i * n + k, d_gate, n - k);
  }
}

template <int D, int U>
TGE_TARGET static void run_sized(const Args& args, int op, int64_t begin,
                                 int64_t end, float* d_pos_vec) {
  const Args a = args;  // not where results are written
  for (int64_t i = begin; i < end; ++i) {
    switch (op) {
      case kAssemble: assemble<D, U>(a, i); break;
      case kRelative: relative<D, U>(a, i); break;
      case kHide: hide(a, i); break;
      case kGate: gate(a, i); break;
      case kGateBackward: gate_backward(a, i); break;
      case kHideBackward: hide_backward(a, i); break;
      case kRelativeBackward: relative_backward<D, U>(a, i); break;
      default: assemble_backward<D, U>(a, i, d_pos_vec);
    }
  }
}

// Points from `begin` to `end`. Adds to `d_pos_vec`, if that is wanted.
static void run(const Args& a, int op, int64_t begin, int64_t end,
                float* d_pos_vec) {
  const auto run = a.dim != 3        ? run_sized<0, 0>
                   : a.vectors == 1  ? run_sized<3, 1>
                   : a.vectors == 2  ? run_sized<3, 2>
                   : a.vectors == 4  ? run_sized<3, 4>
                                     : run_sized<3, 0>;
  run(a, op, begin, end, d_pos_vec);
}

}  // namespace TGE_ISA
}  // namespace points
}  // namespace tge
#undef TGE_VECTOR
