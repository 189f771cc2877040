// All of the dense layers for an instruction set; no include guard.
#include "common/vector.h"
#include "dense/gemm.h"
#include "dense/rows.h"
#include "dense/linear.h"
#include "dense/norm_linear.h"
#include "dense/swiglu.h"
