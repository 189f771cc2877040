// Attention for one instruction set; hence no include guard.
#include "common/vector.h"
#include "attention/gather.h"
#include "attention/tiles.h"
#include "attention/kernel.h"
