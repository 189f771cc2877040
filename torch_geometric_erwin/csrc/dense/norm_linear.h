// y = h weight^T + bias of h = norm(x) + offset pos_weight^T + pos_bias.
// Included as `common/vector.h` is, and after `dense/rows.h`.

namespace tge {
namespace dense {
namespace TGE_ISA {
namespace norm_linear {

constexpr int64_t kRows = 10 * kTall;

// Normalized rows and their gradients, `ld` apart: a thread's in the forward
// pass, a group's in the backward pass.
struct Space {
  int64_t ld;
  float* inverse;  // [rows]
  float* h;        // [rows, channels]
  float* d_h;      // [rows, channels]

  Space(const Args& a, int64_t rows, float* base)
      : ld(stride(a.channels)),
        inverse(base),
        h(base + round_up(rows, 16)),
        d_h(h + rows * ld) {}
};

static Space some(const Args& a, const Group& group, int64_t begin) {
  Space s(a, group.rows, group.kept);
  s.inverse += begin;
  s.h += begin * s.ld;
  s.d_h += begin * s.ld;
  return s;
}

enum { kPos, kPosB, kForward };
enum { kBack = 2, kOffset = 3 };

static Plan plan(const Args& a, bool backward) {
  Plan p{};
  p.tile = kRows;
  p.work = static_cast<double>(a.channels) * a.outputs;
  const int64_t ld = stride(a.channels);
  add(p, a.pos_weight, a.dim, a.dim, a.channels, true);
  add(p, a.pos_bias, a.channels, 1, a.channels, false);
  if (backward) {
    p.work *= 2;
    add(p, a.weight, a.channels, a.outputs, a.channels, false);
    if (a.d_offset) add(p, a.pos_weight, a.dim, a.channels, a.dim, false);
    p.kept = 2 * ld + 1;
    p.scratch = accumulating();
  } else {
    add(p, a.weight, a.channels, a.channels, a.outputs, true);
    p.scratch = kRows * ld + round_up(kRows, 16);
  }
  return p;
}

static void embed(const Args& a, const Plan& p, const float* packed,
                  int64_t begin, int64_t rows, const Space& s) {
  const int64_t whole = round_up(a.channels, kWidth);
  normalize(a.x + begin * a.channels, rows, a.channels, a.scale, a.eps, s.h,
            s.ld, s.inverse);
  multiply({a.offset + begin * a.dim, a.dim}, rows, p.panels[kPos], packed, 0,
           a.dim, 0, whole, {packed + p.panels[kPosB].at, 0}, {s.h, s.ld},
           s.h, s.ld);
}

static void forward(const Args& a, const Plan& p, const float* packed,
                    int64_t begin, int64_t rows, float* scratch) {
  const Space s(a, rows, scratch);
  embed(a, p, packed, begin, rows, s);
  multiply({s.h, s.ld}, rows, p.panels[kForward], packed, 0, a.channels, 0,
           a.outputs, {a.bias, 0}, {nullptr, 0}, a.out + begin * a.outputs,
           a.outputs);
}

static void backward(const Args& a, const Plan& p, const float* packed,
                     const Group& group, int64_t begin, int64_t rows) {
  const Space s = some(a, group, begin);
  begin += group.begin;
  const int64_t at = begin * a.channels;
  embed(a, p, packed, begin, rows, s);
  multiply({a.grad + begin * a.outputs, a.outputs}, rows, p.panels[kBack],
           packed, 0, a.outputs, 0, round_up(a.channels, kWidth), zeros(),
           {nullptr, 0}, s.d_h, s.ld);
  if (a.d_offset)
    multiply({s.d_h, s.ld}, rows, p.panels[kOffset], packed, 0, a.channels, 0,
             a.dim, zeros(), {nullptr, 0}, a.d_offset + begin * a.dim, a.dim);
  unnormalize(a.x + at, rows, a.channels, a.scale, s.inverse, {s.d_h, s.ld},
              a.residual ? a.residual + at : nullptr, a.out + at);
}

static std::vector<Total> totals(const Args& a, const Plan&, const Group& g) {
  const Space s(a, g.rows, g.kept);
  const Rows x{a.x + g.begin * a.channels, a.channels}, d_h{s.d_h, s.ld};
  std::vector<Total> all;
  add(all, {a.grad + g.begin * a.outputs, a.outputs}, a.outputs,
      {s.h, s.ld}, a.channels, a.sums[kWeight], a.channels, a.sums[kBias]);
  // The weight itself has too few columns for vectors.
  all.push_back({kTurned, {a.offset + g.begin * a.dim, a.dim}, d_h, a.dim,
                 a.channels, a.sums[kPosWeight], 0, a.sums[kPosBias],
                 nullptr});
  all.push_back({kScales, x, d_h, 1, a.channels, a.sums[kScale], 0, nullptr,
                 s.inverse});
  return all;
}

}  // namespace norm_linear
}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
