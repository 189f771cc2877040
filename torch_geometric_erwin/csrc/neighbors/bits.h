// Which bits of a byte are set.
#pragma once

#include <cstdint>

namespace tge {
namespace neighbors {

struct SetBits {
  uint8_t lanes[256][8];  // ascending, then zeros

  constexpr SetBits() : lanes{} {
    for (int byte = 0; byte < 256; ++byte) {
      int n = 0;
      for (int bit = 0; bit < 8; ++bit)
        if (byte >> bit & 1) lanes[byte][n++] = static_cast<uint8_t>(bit);
    }
  }
};

inline constexpr SetBits kSetBits{};

}  // namespace neighbors
}  // namespace tge
