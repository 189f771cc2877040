// Attention for one instruction set; hence no include guard.
#include "attention_vector.h"
#include "attention_gather.h"
#include "attention_tiles.h"
#include "attention_kernel.h"
