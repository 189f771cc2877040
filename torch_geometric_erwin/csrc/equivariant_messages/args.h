// What messages along edges are made from, and what they are summed with.
#pragma once

#include <cstdint>

#include "message_passing/args.h"

namespace tge {
namespace equivariant {

using messages::Parts;

// The layout that `ops/equivariant_messages/cpu.py` fills in. What may be
// missing is null. Lists of edges are those of `message_passing/args.h`.
struct Args {
  const float* src;        // [sources, channels], rows `src_ld` apart
  const float* dst;        // [targets, channels], rows `dst_ld` apart
  const float* vec;        // [sources, dim, channels]
  const float* edge;       // [edges, numbers]
  const float* unit;       // [edges, dim]
  const float* weight;     // [channels, numbers]
  const float* scale;      // [channels]
  const float* shift;      // [channels]
  const int64_t* source;   // [edges]
  const int64_t* in_ptr;   // [targets + 1]
  const int64_t* in_edges; // [edges]
  const int64_t* out_ptr;  // [sources + 1]
  const int64_t* out_rows; // [rows of all parts]: those of each source
  const int64_t* in_rows;  // [edges], as `in_edges`: within the part
  const Parts* parts;
  const int64_t* order;    // [targets]: the order in which to take them
  const float* grad;       // [targets, channels]
  const float* grad_vec;   // [targets, dim, 2, channels]
  float* out;              // [targets, channels]
  float* out_vec;          // [targets, dim, 2, channels]
  float* d_src;            // and so on, as what they are gradients of
  float* d_dst;
  float* d_vec;
  float* d_edge;
  float* d_unit;
  float* d_weight;         // [numbers, channels]
  float* d_scale;
  float* d_shift;
  int64_t sources, targets, edges, channels, dim, numbers, src_ld, dst_ld;
  int32_t is_mean, num_threads;
  float eps;
};

// What is made once for all edges: rows of `whole` numbers.
struct Shared {
  const float* weight;  // [numbers, whole]
  const float* scale;   // [whole]
  const float* shift;   // [whole]
  const float* inside;  // [whole]: ones, and zeros past the channels
  int64_t whole;        // channels, rounded up to whole vectors
};

// How messages are computed with the vectors of an instruction set.
struct Kernel {
  // Targets from `begin` to `end`.
  void (*forward)(const Args&, const Shared&, int64_t begin, int64_t end,
                  float* scratch);
  // Adds to `sums`, [numbers + 2, whole], of the weight, the scale and the
  // shift, and to the part's `rows`, [..., 1 + dim, whole], which may be null.
  void (*backward)(const Args&, const Shared&, int64_t begin, int64_t end,
                   float* scratch, float* sums, float* rows);
  int64_t width;
};

constexpr int kBatch = 4;  // edges at a time

inline int64_t scratch_rows(int64_t dim) {
  return 3 + 2 * dim + 3 * kBatch;
}

}  // namespace equivariant
}  // namespace tge
