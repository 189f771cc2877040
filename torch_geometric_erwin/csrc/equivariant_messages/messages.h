// The message of an edge with the direction u and its source's vectors v,
//   m = norm(gelu(src + dst + weight edge + u v)) * scale + shift,
// its sums m, m u and m v over the edges of each target, and gradients.
// Included as `common/vector.h` is, and after `message_passing/moments.h`.
//
// Gradients of sources are added to rows that no other part of the targets adds
// to.

namespace tge {
namespace equivariant {
namespace TGE_ISA {

using namespace vectors::TGE_ISA;
using namespace messages::TGE_ISA;

// Rows of `whole` numbers that a thread works on: kBatch of the last three.
// Forward, `sum`, `along` and `near` are sums m, m u and m v; backward, they
// are gradients of these.
struct Space {
  float *base, *d_dst, *sum, *both, *g, *slope, *pull;

  Space(float* scratch, int64_t whole, int64_t dim)
      : base(scratch),
        d_dst(base + whole),
        sum(d_dst + whole),
        both(sum + whole),
        g(both + 2 * dim * whole),
        slope(g + kBatch * whole),
        pull(slope + kBatch * whole) {}
};

// Some edges: where they come from, and what they tell.
template <int B>
struct Batch {
  const float *row[B], *vec[B], *edge[B], *unit[B];

  Batch(const Args& a, const int64_t* at) {
    for (int b = 0; b < B; ++b) {
      const int64_t source = a.source[at[b]];
      row[b] = a.src + source * a.src_ld;
      vec[b] = a.vec + source * a.dim * a.channels;
      edge[b] = a.edge + at[b] * a.numbers;
      unit[b] = a.unit + at[b] * a.dim;
    }
  }
};

// Writes normalized activations to `g`, and slopes; returns one over
// deviations.
template <bool kSlope, int B>
TGE_VECTOR void activate(const Args& a, const Shared& s,
                         const Batch<B>& batch, const Space& space,
                         float* inverse) {
  const int64_t whole = s.whole, channels = a.channels;
  V total[4] = {}, squares[4] = {}, x[B], slope;
  for (int64_t j = 0; j < channels; j += kWidth) {
    const V base = load(space.base + j);
    for (int b = 0; b < B; ++b)
      x[b] = load_part(batch.row[b] + j, channels - j) + base;
    for (int64_t k = 0; k < a.numbers; ++k) {
      const V w = load(s.weight + k * whole + j);
      for (int b = 0; b < B; ++b)
        x[b] = fma(splat(batch.edge[b][k]), w, x[b]);
    }
    for (int64_t d = 0; d < a.dim; ++d)
      for (int b = 0; b < B; ++b)
        x[b] = fma(splat(batch.unit[b][d]),
                   load_part(batch.vec[b] + d * channels + j, channels - j),
                   x[b]);
    for (int b = 0; b < B; ++b) {
      const V g = gelu(x[b], &slope);
      store(space.g + b * whole + j, g);
      if (kSlope) store(space.slope + b * whole + j, slope);
      total[b] = total[b] + g;
    }
  }
  const float share = 1.f / static_cast<float>(channels);
  alignas(16) float mean[4];
  add_up(total, mean);
  for (int b = 0; b < B; ++b) mean[b] *= share;
  for (int64_t j = 0; j < channels; j += kWidth) {
    const V inside = load(s.inside + j);
    for (int b = 0; b < B; ++b) {
      float* const at = space.g + b * whole + j;
      const V g = load(at) - splat(mean[b]) * inside;
      store(at, g);
      squares[b] = fma(g, g, squares[b]);
    }
  }
  add_up(squares, inverse);
  invert(inverse, share, a.eps);
  for (int64_t j = 0; j < channels; j += kWidth)
    for (int b = 0; b < B; ++b) {
      float* const at = space.g + b * whole + j;
      store(at, load(at) * splat(inverse[b]));
    }
}

// The edges of a target.
struct Edges {
  const int64_t *begin, *end;
  float share;  // of an edge in sums

  Edges(const Args& a, int64_t i)
      : begin(a.in_edges + a.in_ptr[i]), end(a.in_edges + a.in_ptr[i + 1]) {
    const float size = static_cast<float>(end - begin);
    share = a.is_mean && size > 0 ? 1.f / size : 1.f;
  }
};

template <int B>
TGE_VECTOR void add_messages(const Args& a, const Shared& s,
                             const int64_t* at, const Space& space) {
  alignas(16) float inverse[4];
  const int64_t whole = s.whole, channels = a.channels;
  const Batch<B> batch(a, at);
  activate<false, B>(a, s, batch, space, inverse);
  for (int64_t j = 0; j < channels; j += kWidth) {
    const V scale = load(s.scale + j), shift = load(s.shift + j);
    V m[B], total = load(space.sum + j);
    for (int b = 0; b < B; ++b) {
      m[b] = fma(load(space.g + b * whole + j), scale, shift);
      total = total + m[b];
    }
    store(space.sum + j, total);
    for (int64_t d = 0; d < a.dim; ++d) {
      float* const row = space.both + 2 * d * whole + j;
      V along = load(row), near = load(row + whole);
      for (int b = 0; b < B; ++b) {
        const V v = load_part(batch.vec[b] + d * channels + j, channels - j);
        along = fma(splat(batch.unit[b][d]), m[b], along);
        near = fma(m[b], v, near);
      }
      store(row, along);
      store(row + whole, near);
    }
  }
}

TGE_TARGET static void forward(const Args& args, const Shared& shared,
                               int64_t begin, int64_t end, float* scratch) {
  const Args a = args;  // not where results are written
  const Shared s = shared;
  const Space space(scratch, s.whole, a.dim);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t i = a.order ? a.order[t] : t;
    const Edges edges(a, i);
    copy(a.dst + i * a.dst_ld, a.channels, space.base);
    clear(space.sum, (1 + 2 * a.dim) * s.whole);
    const int64_t* at = edges.begin;
    for (; at + kBatch <= edges.end; at += kBatch)
      add_messages<kBatch>(a, s, at, space);
    for (; at < edges.end; ++at) add_messages<1>(a, s, at, space);
    for (int64_t r = 0; r < 1 + 2 * a.dim; ++r) {
      float* const out = r ? a.out_vec + (2 * a.dim * i + r - 1) * a.channels
                           : a.out + i * a.channels;
      for (int64_t j = 0; j < a.channels; j += kWidth)
        store_part(out + j,
                   load(space.sum + r * s.whole + j) * splat(edges.share),
                   a.channels - j);
    }
  }
}

// Writes gradients of normalized activations to `pull`, and adds those of scale
// and shift; returns their means, also times activations.
template <int B>
TGE_VECTOR void pull_messages(const Args& a, const Shared& s,
                              const Batch<B>& batch, const Space& space,
                              float* d_scale, float* mean, float* along) {
  const int64_t whole = s.whole, channels = a.channels;
  V total[4] = {}, dot[4] = {};
  for (int64_t j = 0; j < channels; j += kWidth) {
    V d[B], by = load(d_scale + j), all = load(d_scale + whole + j);
    for (int b = 0; b < B; ++b) d[b] = load(space.sum + j);
    for (int64_t k = 0; k < a.dim; ++k) {
      const float* const row = space.both + 2 * k * whole + j;
      const V to_unit = load(row), to_vec = load(row + whole);
      for (int b = 0; b < B; ++b) {
        const V v = load_part(batch.vec[b] + k * channels + j, channels - j);
        d[b] = fma(splat(batch.unit[b][k]), to_unit, d[b]);
        d[b] = fma(to_vec, v, d[b]);
      }
    }
    for (int b = 0; b < B; ++b) {
      const V y = load(space.g + b * whole + j);
      by = fma(d[b], y, by);
      all = all + d[b];
      const V pull = d[b] * load(s.scale + j);
      store(space.pull + b * whole + j, pull);
      total[b] = total[b] + pull;
      dot[b] = fma(pull, y, dot[b]);
    }
    store(d_scale + j, by);
    store(d_scale + whole + j, all);
  }
  add_up(total, mean);
  add_up(dot, along);
  for (int b = 0; b < 4; ++b) {
    mean[b] /= static_cast<float>(channels);
    along[b] /= static_cast<float>(channels);
  }
}

// The gradient of what edges tell: `x` are gradients of arguments.
template <int B>
TGE_VECTOR void pull_edges(const Args& a, const Shared& s, const int64_t* at,
                           const Batch<B>& batch, const Space& space) {
  const int64_t whole = s.whole, channels = a.channels;
  alignas(16) float found[4];
  for (int64_t k = 0; a.d_edge && k < a.numbers; ++k) {
    V part[4] = {};
    for (int64_t j = 0; j < channels; j += kWidth) {
      const V w = load(s.weight + k * whole + j);
      for (int b = 0; b < B; ++b)
        part[b] = fma(load(space.pull + b * whole + j), w, part[b]);
    }
    add_up(part, found);
    for (int b = 0; b < B; ++b) a.d_edge[at[b] * a.numbers + k] = found[b];
  }
  for (int64_t d = 0; a.d_unit && d < a.dim; ++d) {
    V part[4] = {};
    for (int64_t j = 0; j < channels; j += kWidth) {
      const V to_unit = load(space.both + 2 * d * whole + j);
      const V scale = load(s.scale + j), shift = load(s.shift + j);
      for (int b = 0; b < B; ++b) {
        const V m = fma(load(space.g + b * whole + j), scale, shift);
        const V v = load_part(batch.vec[b] + d * channels + j, channels - j);
        part[b] = fma(m, to_unit, part[b]);
        part[b] = fma(load(space.pull + b * whole + j), v, part[b]);
      }
    }
    add_up(part, found);
    for (int b = 0; b < B; ++b) a.d_unit[at[b] * a.dim + d] = found[b];
  }
}

template <int B>
TGE_VECTOR void add_gradients(const Args& a, const Shared& s,
                              const int64_t* at, const Space& space,
                              float* sums, float* rows) {
  alignas(16) float inverse[4], mean[4], along[4];
  const int64_t whole = s.whole, channels = a.channels;
  const Batch<B> batch(a, at);
  activate<true, B>(a, s, batch, space, inverse);
  pull_messages<B>(a, s, batch, space, sums + a.numbers * whole, mean, along);
  float* row[B];
  for (int b = 0; rows && b < B; ++b)
    row[b] = rows + a.in_rows[at - a.in_edges + b] * (1 + a.dim) * whole;
  for (int64_t j = 0; j < channels; j += kWidth) {
    const V inside = load(s.inside + j);
    const V scale = load(s.scale + j), shift = load(s.shift + j);
    V x[B], m[B], all = load(space.d_dst + j);
    for (int b = 0; b < B; ++b) {
      const V y = load(space.g + b * whole + j);
      float* const pull = space.pull + b * whole + j;
      m[b] = fma(y, scale, shift);
      x[b] = load(pull) - splat(mean[b]) * inside - splat(along[b]) * y;
      x[b] = x[b] * splat(inverse[b]) * load(space.slope + b * whole + j);
      store(pull, x[b]);
      all = all + x[b];
      if (rows) store(row[b] + j, load(row[b] + j) + x[b]);
    }
    store(space.d_dst + j, all);
    for (int64_t d = 0; rows && d < a.dim; ++d) {
      const V to_vec = load(space.both + (2 * d + 1) * whole + j);
      for (int b = 0; b < B; ++b) {
        float* const to = row[b] + (1 + d) * whole + j;
        const V v = fma(m[b], to_vec, load(to));
        store(to, fma(x[b], splat(batch.unit[b][d]), v));
      }
    }
    for (int64_t k = 0; k < a.numbers; ++k) {
      float* const to = sums + k * whole + j;
      V w = load(to);
      for (int b = 0; b < B; ++b) w = fma(x[b], splat(batch.edge[b][k]), w);
      store(to, w);
    }
  }
  pull_edges<B>(a, s, at, batch, space);
}

TGE_TARGET static void backward(const Args& args, const Shared& shared,
                                int64_t begin, int64_t end, float* scratch,
                                float* sums, float* rows) {
  const Args a = args;  // not where results are written
  const Shared s = shared;
  const Space space(scratch, s.whole, a.dim);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t i = a.order ? a.order[t] : t;
    const Edges edges(a, i);
    for (int64_t r = 0; r < 1 + 2 * a.dim; ++r) {
      const float* from =
          r ? a.grad_vec + (2 * a.dim * i + r - 1) * a.channels
            : a.grad + i * a.channels;
      for (int64_t j = 0; j < a.channels; j += kWidth)
        store(space.sum + r * s.whole + j,
              load_part(from + j, a.channels - j) * splat(edges.share));
    }
    copy(a.dst + i * a.dst_ld, a.channels, space.base);
    clear(space.d_dst, s.whole);
    const int64_t* at = edges.begin;
    for (; at + kBatch <= edges.end; at += kBatch)
      add_gradients<kBatch>(a, s, at, space, sums, rows);
    for (; at < edges.end; ++at)
      add_gradients<1>(a, s, at, space, sums, rows);
    for (int64_t j = 0; a.d_dst && j < a.channels; j += kWidth)
      store_part(a.d_dst + i * a.channels + j, load(space.d_dst + j),
                 a.channels - j);
  }
}

static const Kernel kKernel = {forward, backward, kWidth};

}  // namespace TGE_ISA
}  // namespace equivariant
}  // namespace tge
#undef TGE_VECTOR
