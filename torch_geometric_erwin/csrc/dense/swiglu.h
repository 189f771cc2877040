// y = x + (silu(gate) * value) weight_out^T + bias_out of
// [gate, value] = norm(x) weight^T + bias. Included as `common/vector.h`
// is, and after `dense/rows.h`.

namespace tge {
namespace dense {
namespace TGE_ISA {
namespace swiglu {

constexpr int64_t kRows = 20 * kTall, kBlock = 128;

// What a thread works on: some rows, and a block of the hidden columns.
struct Space {
  int64_t ld, wide;  // between rows of channels, and of hidden columns
  float* inverse;    // [rows]
  float* n;          // [rows, channels]: normalized
  float* d_n;        // [rows, channels]
  float *gate, *value, *hidden;  // [rows, block]

  // Counts the floats, and hands them out if there is a `base`.
  int64_t lay_out(const Args& a, const Plan& p, bool backward, float* base) {
    int64_t used = 0;
    const auto take = [&](float*& part, int64_t size) {
      part = base ? base + used : nullptr;
      used += round_up(size, 16);
    };
    const int64_t keep = backward ? 1 : 0;
    ld = stride(a.channels);
    wide = stride(p.block);
    take(inverse, p.tile);
    take(n, p.tile * ld);
    take(d_n, keep * p.tile * ld);
    take(gate, p.tile * wide);
    take(value, p.tile * wide);
    take(hidden, keep * p.tile * wide);
    return used;
  }
};

enum { kGate, kValue, kGateBias, kValueBias, kOut };

static Plan plan(const Args& a, bool backward) {
  Plan p{};
  const int64_t size = a.hidden * a.channels;
  p.block = std::min(kBlock, round_up(a.hidden, kPanel));
  p.work = (backward ? 8. : 3.) * static_cast<double>(size);
  p.sums[kWeight] = 2 * size;
  p.sums[kBias] = 2 * a.hidden;
  p.sums[kWeightOut] = size;
  p.sums[kBiasOut] = p.sums[kScale] = a.channels;
  p.tile = kRows;
  for (int64_t i = 0; i < 2; ++i)
    add(p, a.weight + i * size, a.channels, a.channels, a.hidden, true);
  for (int64_t i = 0; i < 2; ++i)
    add(p, a.bias + i * a.hidden, a.hidden, 1, a.hidden, false);
  add(p, a.weight_out, a.hidden, backward ? a.channels : a.hidden,
      backward ? a.hidden : a.channels, !backward);
  if (backward)
    for (int64_t i = 0; i < 2; ++i)
      add(p, a.weight + i * size, a.channels, a.hidden, a.channels, false);
  p.scratch = Space().lay_out(a, p, backward, nullptr);
  return p;
}

// Gates and values of the hidden columns from `begin`.
static void lift(const Args& a, const Plan& p, const float* packed,
                 int64_t rows, int64_t begin, int64_t width, const Space& s) {
  float* const to[2] = {s.gate, s.value};
  for (int i = 0; i < 2; ++i)
    multiply({s.n, s.ld}, rows, p.panels[kGate + i], packed, 0, a.channels,
             begin, width, {packed + p.panels[kGateBias + i].at + begin, 0},
             {nullptr, 0}, to[i], s.wide);
}

// gate = silu(gate) * value
TGE_TARGET static void activate(int64_t rows, int64_t width, const Space& s) {
  for (int64_t i = 0; i < rows; ++i) {
    float *gate = s.gate + i * s.wide, *value = s.value + i * s.wide;
    for (int64_t j = 0; j < width; j += kWidth) {
      const V x = load(gate + j);
      store(gate + j, x * sigmoid(x) * load(value + j));
    }
  }
}

// With the gradient of the hidden activations in `hidden`: these, and the
// gradients of gates and values in place of them.
TGE_TARGET static void deactivate(int64_t rows, int64_t width,
                                  const Space& s) {
  const V one = splat(1.f);
  for (int64_t i = 0; i < rows; ++i) {
    float *gate = s.gate + i * s.wide, *value = s.value + i * s.wide;
    float* hidden = s.hidden + i * s.wide;
    for (int64_t j = 0; j < width; j += kWidth) {
      const V x = load(gate + j), y = load(value + j), d = load(hidden + j);
      const V part = sigmoid(x), silu = x * part;
      store(hidden + j, silu * y);
      store(value + j, d * silu);
      store(gate + j, d * y * fma(silu, one - part, part));
    }
  }
}

static void forward(const Args& a, const Plan& p, const float* packed,
                    int64_t begin, int64_t rows, float* scratch) {
  Space s;
  s.lay_out(a, p, false, scratch);
  const float* x = a.x + begin * a.channels;
  float* out = a.out + begin * a.channels;
  normalize(x, rows, a.channels, a.scale, a.eps, s.n, s.ld, s.inverse);
  for (int64_t j = 0; j < a.hidden; j += p.block) {
    const int64_t width = std::min(p.block, a.hidden - j);
    const int64_t whole = round_up(width, kWidth);
    const bool last = j + width == a.hidden;
    lift(a, p, packed, rows, j, whole, s);
    activate(rows, whole, s);
    multiply({s.gate, s.wide}, rows, p.panels[kOut], packed, j, width, 0,
             a.channels, j ? Rows{out, a.channels} : Rows{a.bias_out, 0},
             {last ? x : nullptr, a.channels}, out, a.channels);
  }
}

static void backward(const Args& a, const Plan& p, const float* packed,
                     int64_t begin, int64_t rows, bool fresh,
                     float* const* sums, float* scratch) {
  Space s;
  s.lay_out(a, p, true, scratch);
  const int64_t at = begin * a.channels, m = a.hidden;
  const int64_t columns = round_up(a.channels, kWidth);
  const Rows grad{a.grad + at, a.channels}, n{s.n, s.ld};
  normalize(a.x + at, rows, a.channels, a.scale, a.eps, s.n, s.ld, s.inverse);
  for (int64_t j = 0; j < m; j += p.block) {
    const int64_t width = std::min(p.block, m - j);
    const int64_t whole = round_up(width, kWidth);
    lift(a, p, packed, rows, j, whole, s);
    multiply(grad, rows, p.panels[kOut], packed, 0, a.channels, j, whole,
             zeros(), {nullptr, 0}, s.hidden, s.wide);
    deactivate(rows, whole, s);
    accumulate(grad, {s.hidden, s.wide}, rows, a.channels, width, fresh,
               sums[kWeightOut] + j, m);
    float* const parts[2] = {s.gate, s.value};
    for (int i = 0; i < 2; ++i) {
      const Rows part{parts[i], s.wide};
      accumulate(part, n, rows, width, a.channels, fresh,
                 sums[kWeight] + (i * m + j) * a.channels, a.channels);
      add_rows(part, rows, width, sums[kBias] + i * m + j);
      multiply(part, rows, p.panels[kOut + 1 + i], packed, j, width, 0,
               columns, i || j ? Rows{s.d_n, s.ld} : zeros(), {nullptr, 0},
               s.d_n, s.ld);
    }
  }
  add_rows(grad, rows, a.channels, sums[kBiasOut]);
  unnormalize(a.x + at, rows, a.channels, a.scale, s.inverse, {s.d_n, s.ld},
              grad.data, a.out + at, sums[kScale]);
}

}  // namespace swiglu

static const Kernel* kernels() {
  static const Kernel all[kNumOps] = {
      {linear::plan, pack, linear::forward, linear::backward, kPanel, kTall},
      {norm_linear::plan, pack, norm_linear::forward, norm_linear::backward,
       kPanel, kTall},
      {swiglu::plan, pack, swiglu::forward, swiglu::backward, kPanel, kTall},
  };
  return all;
}

}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
#undef TGE_VECTOR
