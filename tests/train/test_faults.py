"""What goes wrong in training: divergence, short memory, a state that is damaged, lost or another's."""

import json
import re

import pytest
import torch

from pmrl_cli.adamw import AdamW
from pmrl_cli.batch import Loss
from pmrl_cli.errors import DivergedError, ResourceError, StateError
from pmrl_cli.fit.context import Hooks
from pmrl_cli.fit.fit import fit
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train import loop
from pmrl_cli.train import run as run_module
from pmrl_cli.train.loop import Interrupted
from tests.train.fits import same, settings_for, simulate, weights

SETTINGS = settings_for(steps=12, batch_size=32, adapter="linear")
DATA = simulate(n=120, dims=(6, 5, 4))


@pytest.fixture(scope="module")
def whole():
    """Weights of the fit that nothing befalls."""
    return weights(fit(DATA, SETTINGS))


def put_objective(monkeypatch, meet):
    """Let the fit's objective call ``meet(step, loss, embeddings)`` for its loss; step counts from 1."""

    def made(*arguments):
        terms, calls = WeightedTerms(*arguments), iter(range(1, 10**6))

        def hook(_module, inputs, loss):
            return meet(next(calls), loss, inputs[0].vectors)

        terms.register_forward_hook(hook)
        return terms

    monkeypatch.setattr(run_module, "WeightedTerms", made)


def infinite_loss(loss, _embeddings):
    return Loss(loss.value * torch.inf, loss.parts)


def undefined_gradient(loss, embeddings):
    # finite itself, with a gradient of 0 * inf
    return Loss(loss.value + (embeddings.sum() * 0).abs().sqrt(), loss.parts)


@pytest.mark.parametrize(("fault", "name"), [(infinite_loss, "loss inf"), (undefined_gradient, "gradient nan")])
def test_a_bad_step_is_not_taken_and_its_step_and_instances_are_named(monkeypatch, tmp_path, whole, fault, name):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)  # a state after each step
    put_objective(monkeypatch, lambda step, loss, embeddings: fault(loss, embeddings) if step == 8 else loss)
    with pytest.raises(DivergedError) as caught:
        fit(DATA, SETTINGS, checkpoint=tmp_path)
    found = re.search(rf"{name} at step 8, whose 32 instances are ('i\d+', ){{5}}…, expected", str(caught.value))
    assert found, str(caught.value)
    assert "Lower --learning-rate (now 0.001)" in str(caught.value)
    assert set(re.findall(r"'(i\d+)'", found[0])) <= set(DATA.ids.to_pylist())
    monkeypatch.undo()
    # What is kept is the state after step 7: from there a sound objective goes on as if nothing had been.
    assert same(weights(fit(DATA, SETTINGS, checkpoint=tmp_path)), whole)


def test_weights_that_are_not_finite_are_never_saved(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)

    def poison(optimiser, *_arguments, **_options):
        optimiser.parameters[0].data.fill_(torch.nan)

    monkeypatch.setattr(AdamW, "step", poison)
    with pytest.raises(DivergedError, match="weights that are not finite after step 1"):
        fit(DATA, SETTINGS, checkpoint=tmp_path)
    steps = [json.loads(path.read_text(encoding="utf-8"))["step"] for path in tmp_path.rglob("checkpoint.json")]
    assert set(steps) <= {0}  # that of the start, which nothing has trained


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        MemoryError("Unable to allocate 9 GiB"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("room", "advice"), [(10, "Batches of 8 have room: add --batch-size 8 --restart"), (0, "Not")]
)
def test_short_memory_names_the_batch_that_was_tried_and_has_room(monkeypatch, tmp_path, whole, error, room, advice):
    def meet(step, loss, embeddings):
        if step >= 3 and len(embeddings) > room:
            raise error
        return loss

    put_objective(monkeypatch, meet)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(ResourceError) as caught:
        fit(DATA, SETTINGS, checkpoint=tmp_path)
    message = str(caught.value)
    assert f"{str(error).splitlines()[0]}, expected room for batches of 32 instances. {advice}" in message
    monkeypatch.undo()
    # trying smaller batches has touched neither the state nor the random numbers of what follows
    assert same(weights(fit(DATA, SETTINGS, checkpoint=tmp_path)), whole)


def test_another_error_of_torch_is_not_taken_for_short_memory(monkeypatch):
    def broken(_step, _loss, _embeddings):
        message = "sizes do not match"
        raise RuntimeError(message)

    put_objective(monkeypatch, broken)
    with pytest.raises(RuntimeError, match="sizes do not match"):
        fit(DATA, SETTINGS)


@pytest.fixture
def interrupted(tmp_path):
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        fit(DATA, SETTINGS, checkpoint=tmp_path, hooks=Hooks(should_stop=lambda: next(calls) == 9))
    return tmp_path / "linear-dropout-0"


def test_a_changed_state_is_refused_and_says_how_to_start_afresh(interrupted, whole):
    for file in sorted(interrupted.iterdir()):
        good = file.read_bytes()
        for bad in (good[:-1], good + b" ", good[:40] + bytes([good[40] ^ 1]) + good[41:], b""):
            file.write_bytes(bad)
            with pytest.raises(StateError, match=r"output has changed since it was written.*--restart"):
                fit(DATA, SETTINGS, checkpoint=interrupted.parent)
        file.write_bytes(good)
    assert same(weights(fit(DATA, SETTINGS, checkpoint=interrupted.parent)), whole)


def test_a_state_whose_removal_was_cut_short_is_no_state(interrupted, whole):
    next(interrupted.glob("state-*")).unlink()
    assert same(weights(fit(DATA, SETTINGS, checkpoint=interrupted.parent)), whole)


def test_what_a_killed_process_left_beside_a_state_is_swept_by_the_next_one(interrupted):
    (interrupted / ".state-9.safetensors.writing").mkdir()
    (interrupted / ".state-9.safetensors.writing" / "new").write_bytes(b"half")
    (interrupted / "state-3.safetensors").write_bytes(b"earlier")
    fit(DATA, SETTINGS, checkpoint=interrupted.parent)
    assert sorted(path.name for path in interrupted.iterdir()) == ["checkpoint.json", "state-12.safetensors"]
