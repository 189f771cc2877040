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
  if (!backward) {
    add(p, a.weight, a.channels, a.channels, a.outputs, true);
    return p;
  }
  p.work *= 2;
  if (a.out) add(p, a.weight, a.channels, a.outputs, a.channels, false);
  p.scratch = accumulating();
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
                     const Group& group, int64_t begin, int64_t rows) {
  if (!a.out) return;
  begin += group.begin;
  const int64_t at = begin * a.channels;
  // Read before anything is written, as it may be where the result goes.
  const Rows from = a.residual ? Rows{a.residual + at, a.channels} : zeros();
  multiply({a.grad + begin * a.outputs, a.outputs}, rows, p.panels[0], packed,
           0, a.outputs, 0, a.channels, from, {nullptr, 0},
           a.out + at, a.channels);
}

static std::vector<Total> totals(const Args& a, const Plan&, const Group& g) {
  std::vector<Total> all;
  add(all, {a.grad + g.begin * a.outputs, a.outputs}, a.outputs,
      {a.x + g.begin * a.channels, a.channels}, a.channels, a.sums[kWeight],
      a.channels, a.sums[kBias]);
  return all;
}

}  // namespace linear
}  // namespace TGE_ISA
}  // namespace dense
}  // namespace tge
