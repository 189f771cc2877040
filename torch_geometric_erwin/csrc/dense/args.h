// What the fused dense layers work on.
#pragma once

#include <cstdint>
#include <vector>

namespace tge {
namespace dense {

enum Op { kLinear = 0, kNormLinear = 1, kSwiGLU = 2, kNumOps = 3 };

constexpr int64_t kDepth = 256;  // a panel of so many rows stays in L1

// Gradients that are sums over all rows.
enum Sum {
  kWeight = 0,
  kBias = 1,
  kWeightOut = 2,
  kBiasOut = 3,
  kScale = 4,
  kPosWeight = 5,
  kPosBias = 6,
  kNumSums = 7
};

// The layout that `ops/dense/cpu.py` fills in; everything is contiguous. What
// may be missing, or is not of the layer, is null.
struct Args {
  const float* x;           // [rows, channels]
  const float* scale;       // [channels]
  const float* offset;      // [rows, dim]
  const float* pos_weight;  // [channels, dim]
  const float* pos_bias;    // [channels]
  const float* weight;      // [outputs, channels]
  const float* bias;        // [outputs]
  const float* weight_out;  // [channels, hidden]
  const float* bias_out;    // [channels]
  const float* residual;    // as `out`, which a gradient's may be
  const float* grad;        // [rows, outputs], or channels of SwiGLU
  float* out;               // the result, or the gradient of `x`
  float* d_offset;          // [rows, dim]
  float* sums[kNumSums];    // of the shapes of what they are gradients of
  int64_t rows, channels, outputs, hidden, dim;
  int32_t num_threads;
  float eps;
};

// A matrix in panels: some columns of it, all rows of these, then the next
// columns. The right side of a product.
struct Panels {
  const float* from;
  int64_t ld;            // between rows of `from`
  int64_t depth, width;  // rows and columns
  bool across;           // whether `from` is the transposed matrix
  int64_t at;            // where the first panel starts
};

struct Plan {
  Panels panels[7];
  int64_t count;    // of these
  int64_t packed;   // floats of all
  int64_t scratch;  // floats of a thread
  int64_t kept;     // floats of a row, for sums over rows
  int64_t tile;     // rows at once
  int64_t block;    // hidden columns at once
  double work;      // multiplications of a row
};

// Rows in memory.
struct Rows {
  const float* data;
  int64_t ld;
};

// Rows whose gradients are kept until all of them have been added up.
struct Group {
  int64_t begin, rows;
  float* kept;  // [rows, plan.kept]
};

// How a gradient is a sum over rows.
enum Kind {
  kProduct,  // left^T right, and the columns of `left` for a bias
  kTurned,   // right^T left, and the columns of `right` for a bias
  kScales    // inverse * left * right
};

// Such a sum, or some rows of it.
struct Total {
  Kind kind;
  Rows left, right;
  int64_t height, width;  // columns of these
  float* sums;
  int64_t ld;            // of a product's
  float* bias;           // may be null
  const float* inverse;  // [rows]: of scales
};

// How a layer is computed with the vectors of an instruction set. Functions
// work on `rows` rows from `begin` on, which `backward` counts from the
// group's first; `fresh` ones are the first of a sum.
struct Kernel {
  Plan (*plan)(const Args&, bool backward);
  void (*pack)(const Panels&, int64_t panel, float* packed);
  void (*forward)(const Args&, const Plan&, const float* packed,
                  int64_t begin, int64_t rows, float* scratch);
  void (*backward)(const Args&, const Plan&, const float* packed,
                   const Group&, int64_t begin, int64_t rows);
  std::vector<Total> (*totals)(const Args&, const Plan&, const Group&);
  void (*accumulate)(Total, int64_t rows, bool fresh, float* scratch);
  int64_t panel, tall;  // columns of a panel, rows of a tile in registers
};

}  // namespace dense
}  // namespace tge
