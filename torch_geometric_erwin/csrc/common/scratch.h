// Memory for the time of a call.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

namespace tge {

// All memory of a call, of which parts start with a line of the cache. Taken
// at once, it is more likely to be kept and not returned to the system.
class Scratch {
 public:
  explicit Scratch(int64_t size) : all_(new float[size + 16]) {
    const auto at = reinterpret_cast<uintptr_t>(all_.get());
    next_ = all_.get() + (64 - at % 64) % 64 / sizeof(float);
  }

  float* take(int64_t size) {
    return std::exchange(next_, next_ + whole(size));
  }

  static int64_t whole(int64_t size) { return (size + 15) / 16 * 16; }

 private:
  std::unique_ptr<float[]> all_;
  float* next_;
};

}  // namespace tge
