// The extension module. It has no Python functions of its own: the kernels
// are plain C functions that `torch_geometric_erwin.ops.native` calls through
// ctypes, which releases the interpreter lock around each call. Built against
// the limited Python API, one binary serves every Python and torch version.
#include <Python.h>

static PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    "torch_geometric_erwin._C",
    "CPU kernels of torch_geometric_erwin.",
    -1,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
    nullptr,
};

PyMODINIT_FUNC PyInit__C(void) { return PyModule_Create(&module); }
