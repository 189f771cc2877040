// What the caller passes in; `ops/build_tree/cpu.py` holds the same structure.
#pragma once

#include <cstdint>

namespace tge {

// An orientation turns the cloud by one angle in the planes of neighbouring
// axes, one after the other, or multiplies its rows by a matrix; a periodic
// cloud is shifted in its cell first.
struct Orientation {
  double cosine, sine;  // no sine: it stays as it is
  double shift;  // of the cell's edges
  double slide;  // in one dimension: of a ball
};

struct TgeTree {
  int32_t scalar_size;  // 4: float, 8: double
  int32_t dim, num_levels, num_orientations, num_threads;
  int32_t box_rows;           // 1: edges; more: see `ops/periodic.py`
  int32_t is_principal;       // splits along principal axes: `principal.h`
  int64_t num_clouds;
  const void* pos;            // [points, dim], clouds one after the other
  const void* mass;           // [points] or null: one each
  const void* box;            // [clouds, box_rows, dim] or null
  const int64_t* ball_sizes;  // [levels]
  const int64_t* strides;     // [levels - 1]
  const Orientation* orientations;
  const double* matrices;     // [orientations, dim, dim] or null: by angles
  const int64_t* const* point_ptr;  // [levels] of [clouds + 1]
  const int64_t* ball_ptr;    // [levels, clouds + 1]
  int64_t* const* index;      // [levels * orientations] of [slots]
  int64_t* const* inverse;    // [levels * orientations] of [points]
  uint8_t* const* mask;       // [levels] of [slots]
};

// How many points and balls each cloud has at each level; the same rules as
// in `ops/build_tree/counts.py`.
struct TgeCounts {
  int32_t num_levels, is_perfect;
  int64_t num_clouds;
  const int64_t* ptr;         // [clouds + 1]: where each cloud begins
  const int64_t* ball_sizes;  // [levels]
  const int64_t* strides;     // [levels - 1]
  int64_t* const* point_ptr;  // [levels] of [clouds + 1]
  int64_t* ball_ptr;          // [levels, clouds + 1]
  int64_t* totals;            // [levels, 2]: points, balls
};

}  // namespace tge
