// Vectors point by point: what lies between the products of matrices of a block
// on scalars and vectors. The formulas are in
// `ops/equivariant_block/reference.py`.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "common/export.h"
#include "common/parallel.h"
#include "equivariant_block/args.h"

namespace tge {
namespace points {
namespace {

constexpr int64_t kChunk = 256;  // points of a task: sums depend on it

// Sums of so many numbers at a time, which compilers make vectors of.
constexpr int kLanes = 16;

float add_squares(const float* x, int64_t n) {
  float part[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int k = 0; k < kLanes; ++k) part[k] += x[i + k] * x[i + k];
  for (; i < n; ++i) part[i % kLanes] += x[i] * x[i];
  float total = 0.f;
  for (int k = 0; k < kLanes; ++k) total += part[k];
  return total;
}

float add_products(const float* x, const float* y, int64_t n) {
  float part[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int k = 0; k < kLanes; ++k) part[k] += x[i + k] * y[i + k];
  for (; i < n; ++i) part[i % kLanes] += x[i] * y[i];
  float total = 0.f;
  for (int k = 0; k < kLanes; ++k) total += part[k];
  return total;
}

// One over the root mean square of a point's vectors.
float unit_of(const Args& a, int64_t i) {
  const int64_t n = a.dim * a.channels;
  const float mean = add_squares(a.vec + i * n, n) / static_cast<float>(n);
  return a.unit[i] = 1.f / std::sqrt(mean + a.eps_norm);
}

void assemble(const Args& a, int64_t i) {
  const int64_t u = a.vectors, both = a.scalars + u, row = both + a.dim * u;
  const int64_t all = 3 * a.heads * u;
  const float unit = unit_of(a, i), *offset = a.offset + i * a.dim;
  float* lifted = a.lifted + i * a.dim * all;
  for (int64_t k = 0; k < a.dim * all; ++k) lifted[k] *= unit;
  for (int64_t h = 0; h < a.heads; ++h) {
    for (int r = 0; r < 3; ++r) {
      const int64_t part = 3 * h + r;
      const float* from = a.qkv + (i * 3 * a.heads + part) * both;
      float* to = a.rows + (i * 3 * a.heads + part) * row;
      const float* weight =
          r < 2 ? a.pos_vec + (2 * h + r) * u : from + a.scalars;
      std::copy_n(from, both, to);
      to += both;
      for (int64_t d = 0; d < a.dim; ++d)
        for (int64_t k = 0; k < u; ++k)
          *to++ = lifted[d * all + part * u + k] + offset[d] * weight[k];
    }
  }
}

void assemble_backward(const Args& a, int64_t i, float* d_pos_vec) {
  const int64_t u = a.vectors, both = a.scalars + u, row = both + a.dim * u;
  const int64_t all = 3 * a.heads * u;
  const float *offset = a.offset + i * a.dim, unit = a.unit[i];
  const float* lifted = a.lifted + i * a.dim * all;
  float *d_lifted = a.d_lifted + i * a.dim * all;
  float *d_offset = a.d_offset + i * a.dim, along = 0.f;
  for (int64_t part = 0; part < 3 * a.heads; ++part) {
    const int64_t h = part / 3, r = part % 3;
    const float* from = a.d_rows + (i * 3 * a.heads + part) * row;
    float* to = a.d_qkv + (i * 3 * a.heads + part) * both;
    const float* weight =
        r < 2 ? a.pos_vec + (2 * h + r) * u
              : a.rows + (i * 3 * a.heads + part) * row + a.scalars;
    float* d_weight = r < 2 ? d_pos_vec + (2 * h + r) * u : to + a.scalars;
    std::copy_n(from, both, to);
    from += both;
    for (int64_t d = 0; d < a.dim; ++d) {
      for (int64_t k = 0; k < u; ++k) {
        const float g = *from++;
        const int64_t at = d * all + part * u + k;
        along += g * lifted[at];
        d_lifted[at] = g * unit;
        d_offset[d] += g * weight[k];
        d_weight[k] += g * offset[d];
      }
    }
  }
  a.along[i] = along * unit * unit / static_cast<float>(a.dim * a.channels);
}

void relative(const Args& a, int64_t i) {
  const int64_t u = a.vectors, both = a.scalars + u, row = both + a.dim * u;
  const float* offset = a.offset + i * a.dim;
  for (int64_t h = 0; h < a.heads; ++h) {
    const float* from = a.out + (i * a.heads + h) * row;
    float* to = a.sums + (i * a.heads + h) * both;
    std::copy_n(from, a.scalars, to);
    for (int64_t k = 0; k < u; ++k) {
      float square = 0.f;
      for (int64_t d = 0; d < a.dim; ++d) {
        const float x = from[both + d * u + k] -
                        offset[d] * from[a.scalars + k];
        a.turn[((i * a.dim + d) * a.heads + h) * u + k] = x;
        square += x * x;
      }
      to[a.scalars + k] = std::sqrt(square + a.eps);
    }
  }
}

void relative_backward(const Args& a, int64_t i) {
  const int64_t u = a.vectors, both = a.scalars + u, row = both + a.dim * u;
  const float* offset = a.offset + i * a.dim;
  float* d_offset = a.d_offset + i * a.dim;
  std::fill_n(d_offset, a.dim, 0.f);
  for (int64_t h = 0; h < a.heads; ++h) {
    const float* weight = a.out + (i * a.heads + h) * row + a.scalars;
    const float* from = a.d_sums + (i * a.heads + h) * both;
    const float* length = a.sums + (i * a.heads + h) * both;
    float* to = a.d_out + (i * a.heads + h) * row;
    std::copy_n(from, a.scalars, to);
    for (int64_t k = 0; k < u; ++k) {
      const float pull = from[a.scalars + k] / length[a.scalars + k];
      float d_weight = 0.f;
      for (int64_t d = 0; d < a.dim; ++d) {
        const int64_t at = ((i * a.dim + d) * a.heads + h) * u + k;
        const float g = a.d_turn[at] + pull * a.turn[at];
        to[both + d * u + k] = g;
        d_weight -= g * offset[d];
        d_offset[d] -= g * weight[k];
      }
      to[a.scalars + k] = d_weight;
    }
  }
}

void hide(const Args& a, int64_t i) {
  const int64_t n = a.number;
  const float unit = unit_of(a, i);
  float *hidden = a.hidden + i * a.dim * n, *lengths = a.lengths + i * n;
  std::fill_n(lengths, n, a.eps);
  for (int64_t d = 0; d < a.dim; ++d, hidden += n) {
    for (int64_t k = 0; k < n; ++k) {
      const float x = hidden[k] * unit;
      hidden[k] = x;
      lengths[k] += x * x;
    }
  }
  for (int64_t k = 0; k < n; ++k) lengths[k] = std::sqrt(lengths[k]);
}

// Gradients of gated vectors come in `product`; those of hidden ones, times
// `unit`, replace them.
void hide_backward(const Args& a, int64_t i) {
  const int64_t n = a.number;
  const float *lengths = a.lengths + i * n, *d_lengths = a.d_lengths + i * n;
  const float unit = a.unit[i];
  float along = 0.f;
  for (int64_t d = 0; d < a.dim; ++d) {
    const float* hidden = a.hidden + (i * a.dim + d) * n;
    float* g = a.product + (i * a.dim + d) * n;
    for (int64_t k = 0; k < n; ++k)
      g[k] += hidden[k] * (d_lengths[k] / lengths[k]);
    along += add_products(g, hidden, n);
    for (int64_t k = 0; k < n; ++k) g[k] *= unit;
  }
  a.along[i] = along * unit * unit / static_cast<float>(a.dim * a.channels);
}

void gate(const Args& a, int64_t i) {
  const int64_t n = a.number;
  const float* factor = a.gate + i * n;
  for (int64_t d = 0; d < a.dim; ++d)
    for (int64_t k = 0; k < n; ++k)
      a.product[(i * a.dim + d) * n + k] =
          a.hidden[(i * a.dim + d) * n + k] * factor[k];
}

void gate_backward(const Args& a, int64_t i) {
  const int64_t n = a.number;
  const float* factor = a.gate + i * n;
  float* d_gate = a.d_gate + i * n;
  std::fill_n(d_gate, n, 0.f);
  for (int64_t d = 0; d < a.dim; ++d) {
    const float* hidden = a.hidden + (i * a.dim + d) * n;
    float* g = a.product + (i * a.dim + d) * n;
    for (int64_t k = 0; k < n; ++k) {
      d_gate[k] += g[k] * hidden[k];
      g[k] *= factor[k];
    }
  }
}

using PerPoint = void (*)(const Args&, int64_t);

constexpr PerPoint kPerPoint[] = {assemble, relative,      hide,
                                  gate,     gate_backward, hide_backward,
                                  relative_backward};

void run(const Args& a, int op) {
  const int64_t chunks = (a.points + kChunk - 1) / kChunk;
  const int64_t width = 2 * a.heads * a.vectors;
  const bool adds = op == kAssembleBackward;
  std::vector<float> sums(adds ? chunks * width : 0);
  const int64_t most = std::min<int64_t>(chunks / 2, a.num_threads);
  Team team(static_cast<int>(std::max<int64_t>(most, 1)), a.num_threads);
  team.for_each(chunks, [&](int64_t c, int) {
    const int64_t end = std::min((c + 1) * kChunk, a.points);
    for (int64_t i = c * kChunk; i < end; ++i)
      adds ? assemble_backward(a, i, sums.data() + c * width)
           : kPerPoint[op](a, i);
  });
  if (!adds) return;
  std::fill_n(a.d_pos_vec, width, 0.f);
  for (int64_t c = 0; c < chunks; ++c)
    for (int64_t k = 0; k < width; ++k)
      a.d_pos_vec[k] += sums[c * width + k];
}

}  // namespace
}  // namespace points
}  // namespace tge

// 0: done; 2: out of memory.
TGE_EXPORT int tge_points(const tge::points::Args* args, int op) {
  try {
    tge::points::run(*args, op);
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}
