// The message of an edge,
//   norm(gelu(src + dst + weight edge)) * scale + shift,
// summed over the edges of each target, and gradients. The sums of normalized
// activations are scaled and shifted once for all edges of a target. Included
// as `common/vector.h` is, and after `gelu.h`.
//
// Gradients of sources are added to rows that no other part of the targets adds
// to.

namespace tge {
namespace messages {
namespace TGE_ISA {

// Rows of `whole` numbers that a thread works on: kBatch of some of them.
struct Space {
  float *base, *sum, *pull, *d_dst, *g, *slope;

  Space(float* scratch, int64_t whole)
      : base(scratch),
        sum(base + whole),
        pull(sum + whole),
        d_dst(pull + whole),
        g(d_dst + whole),
        slope(g + kBatch * whole) {}
};

// Of some edges' activations.
struct Moments {
  alignas(16) float mean[kBatch], inverse[kBatch];  // one over the deviation
};

// Some edges: where they come from, and what they tell.
template <int B>
struct Batch {
  const float *row[B], *edge[B];

  Batch(const Args& a, const int64_t* at) {
    for (int b = 0; b < B; ++b) {
      row[b] = a.src + a.source[at[b]] * a.src_ld;
      edge[b] = a.edge + at[b] * a.dims;
    }
  }
};

// x += weight edge; kDims is `dims`, or zero for any.
template <int kDims, int B>
TGE_VECTOR void add_edges(const Shared& s, int64_t dims,
                          const Batch<B>& batch, int64_t j, V* x) {
  const int64_t count = kDims ? kDims : dims;
  const float* w_at = s.weight + j;
  for (int64_t d = 0; d < count; ++d, w_at += s.whole) {
    const V w = load(w_at);
    for (int b = 0; b < B; ++b) x[b] = fma(splat(batch.edge[b][d]), w, x[b]);
  }
}

// Writes activations less their mean to `g`, and slopes.
template <int kDims, bool kSlope, int B>
TGE_VECTOR void activate(const Args& a, const Shared& s,
                         const Batch<B>& batch, const Space& space,
                         Moments* moments) {
  const int64_t whole = s.whole, channels = a.channels, dims = a.dims;
  V total[4] = {}, squares[4] = {}, x[B], slope;
  for (int64_t j = 0; j < channels; j += kWidth) {
    const V base = load(space.base + j);
    for (int b = 0; b < B; ++b)
      x[b] = load_part(batch.row[b] + j, channels - j) + base;
    add_edges<kDims, B>(s, dims, batch, j, x);
    for (int b = 0; b < B; ++b) {
      const V g = gelu(x[b], &slope);
      store(space.g + b * whole + j, g);
      if (kSlope) store(space.slope + b * whole + j, slope);
      total[b] = total[b] + g;
    }
  }
  const float share = 1.f / static_cast<float>(channels);
  add_up(total, moments->mean);
  for (int b = 0; b < B; ++b) moments->mean[b] *= share;
  for (int64_t j = 0; j < channels; j += kWidth) {
    const V inside = load(s.inside + j);
    for (int b = 0; b < B; ++b) {
      float* const at = space.g + b * whole + j;
      const V g = load(at) - splat(moments->mean[b]) * inside;
      store(at, g);
      squares[b] = fma(g, g, squares[b]);
    }
  }
  add_up(squares, moments->inverse);
  invert(moments->inverse, share, a.eps);
}

// The edges of a target.
struct Edges {
  const int64_t *begin, *end;
  float share;   // of an edge in the sum
  float weight;  // of the shift

  Edges(const Args& a, int64_t i)
      : begin(a.in_edges + a.in_ptr[i]), end(a.in_edges + a.in_ptr[i + 1]) {
    const float size = static_cast<float>(end - begin);
    share = a.is_mean && size > 0 ? 1.f / size : 1.f;
    weight = a.is_mean && size > 0 ? 1.f : size;
  }
};

template <int kDims, int B>
TGE_VECTOR void add_messages(const Args& a, const Shared& s,
                             const int64_t* at, const Space& space) {
  Moments m;
  const Batch<B> batch(a, at);
  activate<kDims, false, B>(a, s, batch, space, &m);
  for (int64_t j = 0; j < a.channels; j += kWidth) {
    V y = load(space.sum + j);
    for (int b = 0; b < B; ++b)
      y = fma(load(space.g + b * s.whole + j), splat(m.inverse[b]), y);
    store(space.sum + j, y);
  }
}

template <int kDims>
TGE_TARGET static void forward(const Args& args, const Shared& shared,
                               int64_t begin, int64_t end,
                               float* scratch) {
  const Args a = args;  // not where results are written
  const Shared s = shared;
  const Space space(scratch, s.whole);
  for (int64_t t = begin; t < end; ++t) {
    const int64_t i = a.order ? a.order[t] : t;
    const Edges edges(a, i);
    copy(a.dst + i * a.dst_ld, a.channels, space.base);
    clear(space.sum, s.whole);
    const int64_t* at = edges.begin;
    for (; at + kBatch <= edges.end; at += kBatch)
      add_messages<kDims, kBatch>(a, s, at, space);
    for (; at < edges.end; ++at) add_messages<kDims, 1>(a, s, at, space);
    float* const out = a.out + i * a.channels;
    for (int64_t j = 0; j < a.channels; j += kWidth) {
      const V y = load(space.sum + j) * splat(edges.share);
      store_part(out + j,
                 fma(y, load(s.scale + j),
                     load(s.shift + j) * splat(edges.weight)),
                 a.channels - j);
    }
  }
}

template <int kDims, int B>
TGE_VECTOR void add_gradients(const Args& a, const Shared& s,
                              const int64_t* at, const Space& space,
                              float* sums, float* rows) {
  Moments m;
  const int64_t dims = kDims ? kDims : a.dims, whole = s.whole;
  const Batch<B> batch(a, at);
  activate<kDims, true, B>(a, s, batch, space, &m);
  V dot[4] = {};
  for (int64_t j = 0; j < a.channels; j += kWidth) {
    V y = load(space.sum + j);
    const V pull = load(space.pull + j);
    for (int b = 0; b < B; ++b) {
      const V g = load(space.g + b * whole + j);
      y = fma(g, splat(m.inverse[b]), y);
      dot[b] = fma(g, pull, dot[b]);
    }
    store(space.sum + j, y);
  }
  alignas(16) float along[4];
  add_up(dot, along);
  float by[B], *row[B];
  const float share = 1.f / static_cast<float>(a.channels);
  for (int b = 0; b < B; ++b) {
    const float r = m.inverse[b];
    by[b] = -r * r * r * along[b] * share;
    if (rows) row[b] = rows + a.in_rows[at - a.in_edges + b] * whole;
  }
  for (int64_t j = 0; j < a.channels; j += kWidth) {
    const V pull = load(space.pull + j);
    V d[B], all = load(space.d_dst + j);
    for (int b = 0; b < B; ++b) {
      d[b] = fma(load(space.g + b * whole + j), splat(by[b]),
                 pull * splat(m.inverse[b]));
      d[b] = d[b] * load(space.slope + b * whole + j);
      all = all + d[b];
      if (rows) store(row[b] + j, load(row[b] + j) + d[b]);
      if (a.d_edge) store(space.slope + b * whole + j, d[b]);
    }
    store(space.d_dst + j, all);
    for (int64_t k = 0; k < dims; ++k) {
      float* const at = sums + k * whole + j;
      V w = load(at);
      for (int b = 0; b < B; ++b) w = fma(d[b], splat(batch.edge[b][k]), w);
      store(at, w);
    }
  }
  for (int64_t k = 0; a.d_edge && k < dims; ++k) {
    V part[4] = {};
    for (int64_t j = 0; j < a.channels; j += kWidth) {
      const V w = load(s.weight + k * whole + j);
      for (int b = 0; b < B; ++b)
        part[b] = fma(load(space.slope + b * whole + j), w, part[b]);
    }
    alignas(16) float d_edge[4];
    add_up(part, d_edge);
    for (int b = 0; b < B; ++b) a.d_edge[at[b] * a.dims + k] = d_edge[b];
  }
}

template <int kDims>
TGE_TARGET static void backward(const Args& args, const Shared& shared,
                                int64_t begin, int64_t end, float* scratch,
                                float* sums, float* rows) {
  const Args a = args;  // not where results are written
  const Shared s = shared;
  const Space space(scratch, s.whole);
  float *d_scale = sums + a.dims * s.whole, *d_shift = d_scale + s.whole;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t i = a.order ? a.order[t] : t;
    const Edges edges(a, i);
    const float* grad = a.grad + i * a.channels;
    V total{};
    for (int64_t j = 0; j < a.channels; j += kWidth) {
      const V g = load_part(grad + j, a.channels - j) * splat(edges.share);
      const V pull = g * load(s.scale + j);
      store(space.pull + j, pull);
      total = total + pull;
    }
    const V mean = splat(sum(total) / static_cast<float>(a.channels));
    for (int64_t j = 0; j < a.channels; j += kWidth) {
      const V pull = load(space.pull + j) - mean * load(s.inside + j);
      store(space.pull + j, pull);
    }
    copy(a.dst + i * a.dst_ld, a.channels, space.base);
    clear(space.sum, s.whole);
    clear(space.d_dst, s.whole);
    const int64_t* at = edges.begin;
    for (; at + kBatch <= edges.end; at += kBatch)
      add_gradients<kDims, kBatch>(a, s, at, space, sums, rows);
    for (; at < edges.end; ++at)
      add_gradients<kDims, 1>(a, s, at, space, sums, rows);
    for (int64_t j = 0; j < a.channels; j += kWidth) {
      const V g = load_part(grad + j, a.channels - j);
      store(d_scale + j, fma(g * splat(edges.share), load(space.sum + j),
                             load(d_scale + j)));
      store(d_shift + j, fma(g, splat(edges.weight), load(d_shift + j)));
      if (a.d_dst)
        store_part(a.d_dst + i * a.channels + j, load(space.d_dst + j),
                   a.channels - j);
    }
  }
}

// For so many numbers on an edge, or for any.
static const Kernel* kernels(int64_t dims) {
  static const Kernel all[] = {
      {forward<0>, backward<0>, kWidth},
      {forward<1>, backward<1>, kWidth},
      {forward<2>, backward<2>, kWidth},
      {forward<3>, backward<3>, kWidth},
  };
  return all + (dims <= 3 ? dims : 0);
}

}  // namespace TGE_ISA
}  // namespace messages
}  // namespace tge
#undef TGE_VECTOR
