// y = x + (silu(gate) * value) weight_out^T + bias_out of
// [gate, value] = norm(x) weight^T + bias. Included as `common/vector.h`
// is, and after `dense/rows.h`.

namespace tge {
namespace dense {
namespace TGE_ISA {
namespace swiglu {

constexpr int64_t kRows = 20 * kTall, kBlock = 128;

// Normalized rows, their gradients, and blocks of hidden columns: a thread's
// in the forward pass, where one block follows the other in the same place, a
// group's in the backward pass.
struct Space {
  int64_t ld, wide;  // between rows of channels, and of hidden columns
  int64_t block;     // between blocks
  float* inverse;    // [rows]
  float* n;          // [rows, channels]: normalized
  float *gate, *value, *hidden;  // [rows, block], of the first block
  float* d_n;                    // [rows, channels]

  Space(const Args& a, const Plan& p, int64_t rows, float* base)
      : ld(stride(a.channels)),
        wide(stride(p.block)),
        block(3 * rows * wide),
        inverse(base),
        n(base + round_up(rows, 16)),
        gate(n + rows * ld),
        value(gate + rows * wide),
        hidden(value + rows * wide),
        d_n(gate + blocks(a, p) * block) {}

  static int64_t blocks(const Args& a, const Plan& p) {
    return (a.hidden + p.block - 1) / p.block;
  }

  void skip_rows(int64_t rows) {
    inverse += rows;
    for (float** part : {&n, &d_n}) *part += rows * ld;
    for (float** part : {&gate, &value, &hidden}) *part += rows * wide;
  }

  void next_block() {
    for (float** part : {&gate, &value, &hidden}) *part += block;
  }
};

enum { kGate, kValue, kGateBias, kValueBias, kOut };

static Plan plan(const Args& a, bool backward) {
  Plan p{};
  const int64_t size = a.hidden * a.channels;
  p.block = std::min(kBlock, round_up(a.hidden, kPanel));
  p.work = (backward ? 8. : 3.) * static_cast<double>(size);
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
  const int64_t ld = stride(a.channels), wide = stride(p.block);
  p.kept = backward ? 2 * ld + 3 * Space::blocks(a, p) * wide + 1 : 0;
  p.scratch = backward ? accumulating()
                       : round_up(kRows, 16) + kRows * (ld + 2 * wide);
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
  const Space s(a, p, rows, scratch);
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
                     const Group& group, int64_t begin, int64_t rows) {
  Space s(a, p, group.rows, group.kept);
  s.skip_rows(begin);
  const int64_t at = (group.begin + begin) * a.channels;
  const int64_t columns = round_up(a.channels, kWidth);
  const Rows grad{a.grad + at, a.channels};
  normalize(a.x + at, rows, a.channels, a.scale, a.eps, s.n, s.ld, s.inverse);
  for (int64_t j = 0; j < a.hidden; j += p.block, s.next_block()) {
    const int64_t width = std::min(p.block, a.hidden - j);
    const int64_t whole = round_up(width, kWidth);
    lift(a, p, packed, rows, j, whole, s);
    multiply(grad, rows, p.panels[kOut], packed, 0, a.channels, j, whole,
             zeros(), {nullptr, 0}, s.hidden, s.wide);
    deactivate(rows, whole, s);
    float* const parts[2] = {s.gate, s.value};
    for (int i = 0; i < 2; ++i)
      multiply({parts[i], s.wide}, rows, p.panels[kOut + 1 + i], packed, j,
               width, 0, columns, i || j ? Rows{s.d_n, s.ld} : zeros(),
               {nullptr, 0}, s.d_n, s.ld);
  }
  unnormalize(a.x + at, rows, a.channels, a.scale, s.inverse, {s.d_n, s.ld},
              grad.data, a.out + at);
}

static std::vector<Total> totals(const Args& a, const Plan& p,
                                 const Group& g) {
  Space s(a, p, g.rows, g.kept);
  const int64_t at = g.begin * a.channels, m = a.hidden;
  const Rows grad{a.grad + at, a.channels}, n{s.n, s.ld};
  std::vector<Total> all;
  for (int64_t j = 0; j < m; j += p.block, s.next_block()) {
    const int64_t width = std::min(p.block, m - j);
    float* const parts[2] = {s.gate, s.value};
    for (int i = 0; i < 2; ++i)
      add(all, {parts[i], s.wide}, width, n, a.channels,
          a.sums[kWeight] + (i * m + j) * a.channels, a.channels,
          a.sums[kBias] + i * m + j);
    add(all, grad, a.channels, {s.hidden, s.wide}, width,
        a.sums[kWeightOut] + j, m, j ? nullptr : a.sums[kBiasOut]);
  }
  all.push_back({kScales, {a.x + at, a.channels}, {s.d_n, s.ld}, 1,
                 a.channels, a.sums[kScale], 0, nullptr, s.inverse});
  return all;
}

}  // namespace swiglu

static const Kernel* kernels() {
  static const Kernel all[kNumOps] = {
      {linear::plan, pack, linear::forward, linear::backward, linear::totals,
       accumulate, kPanel, kTall},
      {norm_linear::plan, pack, norm_linear::forward, norm_linear::backward,
       norm_linear::totals, accumulate, kPanel, kTall},
      {swiglu::plan, pack, swiglu::forward, swiglu::backward, swiglu::totals,
       accumulate, kPanel, kTall},
  };
  return all;
}

}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
#undef TGE_VECTOR
