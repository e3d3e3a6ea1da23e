"""The arithmetics that closed forms are held to the same references with; a GPU's where there is one."""

import pytest
import torch

from pmrl_cli.closed_form.arithmetic import CPU, _Torch

DEVICES = [
    torch.device("cpu"),
    *[pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)] * torch.cuda.is_available(),
]


@pytest.fixture(params=["numpy", *DEVICES], ids=str)
def on(request):
    """Return what a closed form computes with: NumPy, torch on the CPU, torch on a GPU."""
    return CPU if request.param == "numpy" else _Torch(request.param)


@pytest.fixture(params=DEVICES, ids=str)
def torch_on(request):
    """Return torch on the CPU, and on a GPU."""
    return _Torch(request.param)
