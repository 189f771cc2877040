import os

import torch
from hypothesis import settings

if 'PYTEST_XDIST_WORKER' in os.environ:
    # Workers share the cores; OpenMP threads that wait for each other's
    # would spend most of the time spinning.
    torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton's interpreter, which has to be asked for before its import.
    os.environ.setdefault('TRITON_INTERPRET', '1')


settings.register_profile('patient', deadline=None)  # machines are shared
settings.load_profile('patient')
