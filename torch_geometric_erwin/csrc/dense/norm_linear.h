// y = h weight^T + bias of h = norm(x) + offset pos_weight^T + pos_bias.
// Included as `common/vector.h` is, and after `dense/rows.h`.

namespace tge {
namespace dense {
namespace TGE_ISA {
namespace norm_linear {

constexpr int64_t kRows = 10 * kTall;

// What a thread works on. Rows of channels are `ld` apart.
struct Space {
  int64_t ld;
  float* inverse;      // [rows]
  float* h;            // [rows, channels]
  float* d_h;          // [rows, channels]
  float* d_pos;        // [dim, channels]: of the position's weight

  // Counts the floats, and hands them out if there is a `base`.
  int64_t lay_out(const Args& a, bool backward, float* base) {
    int64_t used = 0;
    const auto take = [&](float*& part, int64_t size) {
      part = base ? base + used : nullptr;
      used += round_up(size, 16);
    };
    const int64_t keep = backward ? 1 : 0;
    ld = stride(a.channels);
    take(inverse, kRows);
    take(h, kRows * ld);
    take(d_h, keep * kRows * ld);
    take(d_pos, keep * a.dim * ld);
    return used;
  }
};

enum { kPos, kPosB, kForward };
enum { kBack = 2, kOffset = 3 };

static Plan plan(const Args& a, bool backward) {
  Plan p{};
  p.tile = kRows;
  p.work = static_cast<double>(a.channels) * a.outputs;
  p.sums[kWeight] = a.outputs * a.channels;
  p.sums[kBias] = a.outputs;
  p.sums[kScale] = p.sums[kPosBias] = a.channels;
  p.sums[kPosWeight] = a.channels * a.dim;
  add(p, a.pos_weight, a.dim, a.dim, a.channels, true);
  add(p, a.pos_bias, a.channels, 1, a.channels, false);
  if (backward) {
    p.work *= 2;
    add(p, a.weight, a.channels, a.outputs, a.channels, false);
    if (a.d_offset) add(p, a.pos_weight, a.dim, a.channels, a.dim, false);
  } else {
    add(p, a.weight, a.channels, a.channels, a.outputs, true);
  }
  p.scratch = Space().lay_out(a, backward, nullptr);
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
  Space s;
  s.lay_out(a, false, scratch);
  embed(a, p, packed, begin, rows, s);
  multiply({s.h, s.ld}, rows, p.panels[kForward], packed, 0, a.channels, 0,
           a.outputs, {a.bias, 0}, {nullptr, 0}, a.out + begin * a.outputs,
           a.outputs);
}

static void backward(const Args& a, const Plan& p, const float* packed,
                     int64_t begin, int64_t rows, bool fresh,
                     float* const* sums, float* scratch) {
  Space s;
  s.lay_out(a, true, scratch);
  const int64_t whole = round_up(a.channels, kWidth);
  const Rows grad{a.grad + begin * a.outputs, a.outputs};
  const Rows offset{a.offset + begin * a.dim, a.dim};
  embed(a, p, packed, begin, rows, s);
  accumulate(grad, {s.h, s.ld}, rows, a.outputs, a.channels, fresh,
             sums[kWeight], a.channels);
  add_rows(grad, rows, a.outputs, sums[kBias]);
  multiply(grad, rows, p.panels[kBack], packed, 0, a.outputs, 0, whole,
           zeros(), {nullptr, 0}, s.d_h, s.ld);
  // The weight itself has too few columns for vectors.
  accumulate(offset, {s.d_h, s.ld}, rows, a.dim, whole, true, s.d_pos, s.ld);
  for (int64_t c = 0; c < a.channels; ++c)
    for (int64_t d = 0; d < a.dim; ++d)
      sums[kPosWeight][c * a.dim + d] += s.d_pos[d * s.ld + c];
  add_rows({s.d_h, s.ld}, rows, a.channels, sums[kPosBias]);
  if (a.d_offset)
    multiply({s.d_h, s.ld}, rows, p.panels[kOffset], packed, 0, a.channels, 0,
             a.dim, zeros(), {nullptr, 0}, a.d_offset + begin * a.dim, a.dim);
  const int64_t at = begin * a.channels;
  unnormalize(a.x + at, rows, a.channels, a.scale, s.inverse, {s.d_h, s.ld},
              a.residual ? a.residual + at : nullptr, a.out + at,
              sums[kScale]);
}

}  // namespace norm_linear
}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
