// What messages along edges are made from.
#pragma once

#include <cstdint>

namespace tge {
namespace messages {

// Nodes in parts: each adds to gradients of sources in rows of its own, one for
// each source that its edges have, which are added up afterwards.
constexpr int64_t kMostParts = 256;

struct Parts {
  int64_t first[kMostParts + 1];  // target of each part
  int64_t rows[kMostParts + 1];   // before those of each part
  int64_t count;
};

// The layout that `ops/message_passing/cpu.py` fills in. What may be missing
// is null. Edges keep their order; each target has a list of its own ones.
struct Args {
  const float* src;          // [sources, channels], rows `src_ld` apart
  const float* dst;          // [targets, channels], rows `dst_ld` apart
  const float* edge;         // [edges, dims]
  const float* weight;       // [channels, dims]
  const float* scale;        // [channels]
  const float* shift;        // [channels]
  const int64_t* source;     // [edges]
  const int64_t* in_ptr;     // [targets + 1]
  const int64_t* in_edges;   // [edges]
  const int64_t* out_ptr;    // [sources + 1]
  const int64_t* out_rows;   // [rows of all parts]: those of each source
  const int64_t* in_rows;    // [edges], as `in_edges`: within the part
  const Parts* parts;
  const int64_t* order;      // [targets]: the order in which to take them
  const float* grad;         // [targets, channels]
  float* out;                // [targets, channels]
  float* d_src;              // [sources, channels]
  float* d_dst;              // [targets, channels]
  float* d_edge;             // [edges, dims]
  float* d_weight;           // [dims, channels]
  float* d_scale;            // [channels]
  float* d_shift;            // [channels]
  int64_t sources, targets, edges, channels, dims, src_ld, dst_ld;
  int32_t is_mean, num_threads;
  float eps;
};

// What is made once for all edges.
struct Shared {
  const float* weight;  // [dims, whole]
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
  // Adds to `sums`, [dims + 2, whole], of the weight, the scale and the shift,
  // and to the part's `rows`, [..., whole], which may be null.
  void (*backward)(const Args&, const Shared&, int64_t begin, int64_t end,
                   float* scratch, float* sums, float* rows);
  int64_t width;
};

constexpr int kBatch = 4;  // edges at a time
constexpr int64_t kScratchRows = 4 + 2 * kBatch;

}  // namespace messages
}  // namespace tge
