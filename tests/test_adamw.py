"""AdamW: torch's own, to the bit, without its compiler."""

import torch
from torch import nn

from pmrl_cli.adamw import AdamW
from tests.typed import pmrl


def test_it_steps_as_torchs_own_and_leaves_everything_after_a_bad_loss():
    torch.manual_seed(0)
    start = [torch.randn(5, 3), torch.randn(4), torch.randn(())]
    ours, theirs = ([nn.Parameter(tensor.clone()) for tensor in start] for _ in range(2))
    bad = torch.zeros(())
    own = AdamW([(ours[:2], 0.1), (ours[2:], 0.0)], learning_rate=0.01, bad=bad)
    groups = [{"params": theirs[:2], "weight_decay": 0.1}, {"params": theirs[2:], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, fused=True)
    for step in range(7):
        for first, second in zip(ours, theirs, strict=True):
            gradient = None if step == 3 and first.ndim == 1 else torch.randn(first.shape)
            first.grad, second.grad = gradient, None if gradient is None else gradient.clone()
        own.step()
        reference.step()
        assert all(torch.equal(first, second) for first, second in zip(ours, theirs, strict=True))
    for index, state in reference.state_dict()["state"].items():
        assert all(torch.equal(own.state_dict()["state"][index][name], tensor) for name, tensor in state.items())
    kept = [parameter.detach().clone() for parameter in ours]
    bad.fill_(1)
    own.step()
    assert all(torch.equal(first, second) for first, second in zip(ours, kept, strict=True))


def test_without_decay_it_is_torchs_own_adam():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(5, 3))
    theirs = nn.Parameter(ours.detach().clone())
    own = AdamW([([ours], 0.0)], learning_rate=0.01, betas=(0.5, 0.999))
    reference = torch.optim.Adam([theirs], lr=0.01, betas=(0.5, 0.999), fused=True)
    for _ in range(5):
        ours.grad = torch.randn(5, 3)
        theirs.grad = ours.grad.clone()
        own.step()
        reference.step()
        assert torch.equal(ours, theirs)


def test_a_step_does_not_import_torchs_compiler(tmp_path):
    (tmp_path / "step.py").write_text(
        """import sys, torch
from pmrl_cli.adamw import AdamW

parameter = torch.nn.Parameter(torch.zeros(3))
own = AdamW([([parameter], 0.1)], learning_rate=0.1, bad=torch.zeros(()))
parameter.sum().backward()
own.step()
own.zero_grad()
print("torch._dynamo" in sys.modules)
""",
        encoding="utf-8",
    )
    ran = pmrl(program=tmp_path / "step.py")
    assert ran.stdout == "False\n", ran.stderr
