// y = residual + x weight^T + bias. Included as `common/vector.h` is, and
// after `dense/rows.h`.

namespace tge {
namespace dense {
namespace TGE_ISA {
namespace linear {

constexpr int64_t kRows = 12 * kTall;

static Plan plan(const Args& a, bool backward) {
  Plan p{};
  p.tile = kRows;
  p.work = static_cast<double>(a.channels) * a.outputs;
  p.sums[kWeight] = a.outputs * a.channels;
  p.sums[kBias] = a.outputs;
  if (!backward) {
    add(p, a.weight, a.channels, a.channels, a.outputs, true);
    return p;
  }
  p.work *= 2;
  if (a.out) add(p, a.weight, a.channels, a.outputs, a.channels, false);
  p.scratch = p.tile * stride(a.channels);
  return p;
}

static void forward(const Args& a, const Plan& p, const float* packed,
                    int64_t begin, int64_t rows, float*) {
  const float* residual = a.residual;
  if (residual) residual += begin * a.outputs;
  multiply({a.x + begin * a.channels, a.channels}, rows, p.panels[0], packed,
           0, a.channels, 0, a.outputs, a.bias ? Rows{a.bias, 0} : zeros(),
           {residual, a.outputs}, a.out + begin * a.outputs, a.outputs);
}

static void backward(const Args& a, const Plan& p, const float* packed,
                     int64_t begin, int64_t rows, bool fresh,
                     float* const* sums, float* scratch) {
  const Rows grad{a.grad + begin * a.outputs, a.outputs};
  const Rows x{a.x + begin * a.channels, a.channels};
  if (a.out)
    multiply(grad, rows, p.panels[0], packed, 0, a.outputs, 0, a.channels,
             zeros(), {nullptr, 0}, a.out + begin * a.channels, a.channels);
  const int64_t ld = stride(a.channels);
  copy_rows(x, rows, a.channels, scratch, ld);
  accumulate(grad, {scratch, ld}, rows, a.outputs, a.channels, fresh,
             sums[kWeight], a.channels);
  add_rows(grad, rows, a.outputs, sums[kBias]);
}

}  // namespace linear
}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
