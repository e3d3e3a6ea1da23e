"""A fit that is interrupted continues bit for bit, and from no checkpoint but its own."""

import json

import pyarrow as pa
import pytest

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.errors import StateError
from pmrl_cli.files.durable.checksums import SEAL, write_with_digest
from pmrl_cli.fit.context import Hooks
from pmrl_cli.fit.fit import fit
from pmrl_cli.train.loop import Interrupted
from tests.train.fits import interrupt, same, settings_for, simulate, weights

INTERRUPTED = settings_for(steps=20, batch_size=32, patience=99, dropout=None, refit=True)


@pytest.fixture(scope="module")
def whole():
    return fit(simulate(), INTERRUPTED)


@pytest.mark.parametrize("killed_after", [1, 8, 19, 20, 32, 42])
def test_an_interrupted_fit_continues_bit_for_bit(tmp_path, whole, killed_after):
    settings = INTERRUPTED
    interrupt(settings, tmp_path / "state", killed_after)
    resumed = fit(simulate(), settings, checkpoint=tmp_path / "state")
    assert same(weights(whole), weights(resumed))
    assert [line.step for line in whole.history] == [line.step for line in resumed.history]
    assert repr(whole.history) == repr(resumed.history)
    assert [recipe.learned for recipe in whole.recipes] == [recipe.learned for recipe in resumed.recipes]


def test_a_checkpoint_of_other_data_or_settings_is_refused_by_name(tmp_path):
    settings = settings_for(steps=40, batch_size=32)
    with pytest.raises(Interrupted):
        fit(simulate(), settings, checkpoint=tmp_path, hooks=Hooks(should_stop=lambda: True))
    with pytest.raises(StateError, match="setting learning_rate"):
        fit(simulate(), settings_for(steps=40, batch_size=32, learning_rate=2e-3), checkpoint=tmp_path)
    other = simulate()
    changed = Features("m0", other.modalities[0].array, digest="another")
    other = Dataset(other.ids, (changed, *other.modalities[1:]), other.present)
    with pytest.raises(StateError, match="data of m0"):
        fit(other, settings, checkpoint=tmp_path)


@pytest.mark.parametrize("lost", ["fingerprint", "sums"])
def test_a_checkpoint_of_another_version_is_refused_with_what_to_type(tmp_path, lost):
    settings = settings_for(steps=40, batch_size=32)
    with pytest.raises(Interrupted):
        fit(simulate(), settings, checkpoint=tmp_path, hooks=Hooks(should_stop=lambda: True))
    path = next(tmp_path.rglob("checkpoint.json"))
    kept = json.loads(path.read_text())
    write_with_digest(path, {name: value for name, value in kept.items() if name not in (lost, SEAL)})
    with pytest.raises(StateError, match=f"of another version of pmrl: .* without {lost}.* again with --restart"):
        fit(simulate(), settings, checkpoint=tmp_path)


def test_a_checkpoint_of_another_split_is_refused_by_name(tmp_path):
    data = simulate()
    words = ["validation" if i % 5 == 0 else "train" for i in range(len(data))]
    sides = [{"part": pa.array(w)} for w in (words, words[::-1])]
    settings = settings_for(split_column="part", steps=40, batch_size=32)
    calls = iter(range(100))
    one, other = (Dataset(data.ids, data.modalities, data.present, side) for side in sides)
    with pytest.raises(Interrupted):
        fit(one, settings, checkpoint=tmp_path, hooks=Hooks(should_stop=lambda: next(calls) == 3))
    with pytest.raises(StateError, match="split"):
        fit(other, settings, checkpoint=tmp_path)
