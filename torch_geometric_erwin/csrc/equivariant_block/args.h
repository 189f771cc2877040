// What is done to a block's vectors point by point, between the products of
// matrices.
#pragma once

#include <cstdint>

namespace tge {
namespace points {

enum Op {
  kAssemble = 0,          // queries, keys and values
  kRelative = 1,          // of the heads' sums
  kHide = 2,              // vectors, normalized, and lengths
  kGate = 3,              // times hidden vectors
  kGateBackward = 4,
  kHideBackward = 5,
  kRelativeBackward = 6,
  kAssembleBackward = 7,
};

// The layout that `ops/equivariant_block/points.py` fills in; everything is
// contiguous. What is not of the operation is null. A head has `scalars` and
// `vectors`, E = scalars + (1 + dim) * vectors numbers in all.
struct Args {
  const float* vec;      // [points, dim, channels]
  const float* offset;   // [points, dim]
  const float* pos_vec;  // [heads, 2, vectors]
  const float* qkv;      // [points, heads, 3, scalars + vectors]
  float* lifted;         // [points, dim, heads, 3, vectors]
  float* rows;           // [points, heads, 3, E]
  float* out;            // [points, heads, E]
  float* sums;           // [points, heads, scalars + vectors]
  float* turn;           // [points, dim, heads, vectors]
  float* hidden;         // [points, dim, number]
  float* lengths;        // [points, number]
  float* gate;           // [points, number]
  float* product;        // [points, dim, number]
  const float* residual;  // as `d_vec`, which it may be
  float* d_vec;          // and so on, as what they are gradients of
  const float* d_rows;
  const float* d_sums;
  const float* d_lengths;
  float* d_qkv;
  float* d_lifted;
  float* d_out;
  float* d_turn;
  float* d_gate;
  float* d_offset;
  float* d_pos_vec;
  int64_t points, dim, channels, heads, scalars, vectors, number;
  float eps, eps_norm;
  int32_t num_threads;
};

}  // namespace points
}  // namespace tge
