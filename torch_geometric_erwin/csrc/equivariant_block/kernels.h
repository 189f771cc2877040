// What is done to vectors, for an instruction set; no include guard.
#include "common/vector.h"
#include "equivariant_block/points.h"
