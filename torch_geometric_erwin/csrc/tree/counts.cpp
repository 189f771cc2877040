// How many points and balls the clouds have at every level.
#include <algorithm>

#include "common/export.h"
#include "tree/args.h"

namespace tge {
namespace {

class LevelCounts {
 public:
  explicit LevelCounts(const TgeCounts& args) : a_(args) {}

  void run() const {
    const int64_t width = a_.num_clouds + 1;
    for (int l = 0; l < a_.num_levels; ++l)
      a_.point_ptr[l][0] = a_.ball_ptr[l * width] = 0;
    for (int64_t c = 0; c < a_.num_clouds; ++c) {
      int64_t points = a_.ptr[c + 1] - a_.ptr[c], balls = 0;
      for (int l = 0; l < a_.num_levels; ++l) {
        if (l > 0) points = std::min(points, groups(l - 1, balls));
        balls = num_balls(l, points, balls);
        a_.point_ptr[l][c + 1] = a_.point_ptr[l][c] + points;
        int64_t* const to = a_.ball_ptr + l * width + c;
        to[1] = to[0] + balls;
      }
    }
    for (int l = 0; l < a_.num_levels; ++l) {
      a_.totals[2 * l] = a_.point_ptr[l][a_.num_clouds];
      a_.totals[2 * l + 1] = a_.ball_ptr[l * width + a_.num_clouds];
    }
  }

 private:
  int64_t groups(int l, int64_t balls) const {
    return balls * a_.ball_sizes[l] / a_.strides[l];
  }

  int64_t num_balls(int l, int64_t points, int64_t balls_before) const {
    const int64_t size = a_.ball_sizes[l];
    if (!a_.is_perfect) return (points + size - 1) / size;
    if (l > 0 && a_.strides[l - 1] > 1) {
      const int64_t share = size * a_.strides[l - 1] / a_.ball_sizes[l - 1];
      if (share > 0)  // balls are unions of those of the level before
        return std::max<int64_t>(balls_before / share, points > 0);
    }
    int64_t slots = 1;
    while (slots < points) slots *= 2;
    // a ball holds at least one point
    return std::min(std::max<int64_t>(slots / size, 1), points);
  }

  const TgeCounts& a_;
};

}  // namespace
}  // namespace tge

TGE_EXPORT void tge_count_levels(const tge::TgeCounts* args) {
  tge::LevelCounts(*args).run();
}
