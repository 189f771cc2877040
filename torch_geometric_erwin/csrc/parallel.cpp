#include "parallel.h"

#include "export.h"

// For a process that was forked before it first called a kernel.
TGE_EXPORT void tge_leave_openmp() { tge::is_forked() = true; }
