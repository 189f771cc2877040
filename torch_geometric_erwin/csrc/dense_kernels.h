// All of the dense layers for an instruction set; no include guard.
#include "attention_vector.h"
#include "gemm.h"
#include "dense_rows.h"
#include "linear.h"
#include "norm_linear.h"
#include "swiglu.h"
