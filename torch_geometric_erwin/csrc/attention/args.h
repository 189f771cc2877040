// What attention within balls works on.
#pragma once

#include <cstdint>
#include <vector>

#include "common/half.h"

namespace tge {
namespace attention {

enum Bias { kNone = 0, kDistance = 1, kSquared = 2 };

// Rows of points and heads; the numbers of a head are contiguous.
struct Rows {
  void* data;
  int64_t point, head;  // strides
};

// The layout that `ops/ball_attention/cpu.py` fills in. What may be missing
// is null.
struct Args {
  Rows query, key, value, out, grad, d_query, d_key, d_value;
  const void* pos;       // [points, dim], contiguous
  const void* box;       // [balls, box_rows, dim], of the type of `pos`
  const float* slope;    // [heads]
  const int64_t* index;  // [slots]
  const uint8_t* mask;   // [slots]
  float* lse;            // [points, heads]: logarithms to base 2
  void* d_pos;           // [points, dim]
  float* d_slope;        // [heads]
  int64_t num_points, num_balls, ball_size, heads, width, dim;
  int64_t box_rows;      // 1: edges; more: see `ops/periodic.py`
  int32_t storage, bias, pos_is_double, num_threads;
};

// The real slots of a ball.
struct Ball {
  const int64_t* points;
  int64_t size, id;
};

// One ball and the heads [begin, end).
struct Task {
  Ball ball;
  int64_t begin, end;
  double* d_slope;  // [heads], of this ball
  double* d_pos;    // [points, dim], of this group of heads
};

}  // namespace attention
}  // namespace tge
