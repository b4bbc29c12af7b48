"""Batches as Lightning handles them, by what it does to dictionaries; its own Trainer where it is installed."""

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from bridge.shared import tensors
from bridge.shared import time_limit as time_limit

import torch_bridge as tio


def mapped(x, function):
    """A function of the tensors in nested dictionaries and lists, each made anew as what it was."""
    if isinstance(x, torch.Tensor):
        return function(x)
    if isinstance(x, Mapping):
        return type(x)(OrderedDict((name, mapped(value, function)) for name, value in x.items()))
    return [mapped(each, function) for each in x] if isinstance(x, list) else x


def batch():
    return torch.utils.data.default_collate([tensors(age=1, name="a"), tensors(1, age=2, name="b")])


@pytest.mark.parametrize("make", [batch, lambda: tensors(age=3)])
def test_batches_and_subjects_are_made_anew_of_their_items(make):
    x = make()
    for made in (mapped(x, torch.clone), type(x)(x.items()) if isinstance(x, tio.Batch) else x):
        assert type(made) is type(x) and list(made) == list(x)
        for name in ("t1", "label"):
            assert type(made[name]) is type(x[name]) and torch.equal(made[name].data, x[name].data)
            np.testing.assert_array_equal(made[name].affine, x[name].affine)
            assert made[name].path == x[name].path
    pairs = type(x.t1)(tuple(x.t1.items()))
    assert torch.equal(pairs.data, x.t1.data)
    augmented = tio.Augment(tio.RandomFlip(axes=0))(mapped(batch(), torch.clone))
    assert augmented.age.tolist() == [1, 2] and augmented.t1.shape == batch().t1.shape


def test_a_precision_that_rounds_affines_is_warned_of():
    half = lambda x: x.bfloat16() if x.is_floating_point() else x  # noqa: E731
    with pytest.warns(UserWarning, match="affines were rounded to torch.bfloat16"):
        made = mapped(batch(), half)
    assert made.t1.dtype == torch.bfloat16 and made.label.dtype == torch.int64


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_logs_augments_on_the_device_and_resumes_exactly(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.augment, self.layer, self.seen = tio.Augment(tio.RandomNoise(), seed=4), torch.nn.Conv3d(1, 1, 3), []

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return self.augment(batch) if self.trainer.training else batch

        def training_step(self, batch, index):
            self.seen.append((batch["age"].tolist(), batch["t1"][tio.DATA].clone()))
            loss = self.layer(batch["t1"][tio.DATA]).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-3)

    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "default_root_dir": tmp_path}
    loader = lambda: tio.SubjectsLoader(  # noqa: E731
        tio.SubjectsDataset([tensors(i, age=i) for i in range(4)], tio.RandomAffine()), 2, shuffle=True
    )

    def run(steps, path=None):
        torch.manual_seed(2)
        model, trainer = Model(), lightning.Trainer(max_steps=steps, enable_checkpointing=False, **options)
        trainer.fit(model, loader(), ckpt_path=path)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return model.seen

    whole, begun = run(3), run(1)
    rest = run(3, tmp_path / "1.ckpt")
    assert [age for age, _ in begun + rest] == [age for age, _ in whole]
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(begun + rest, whole, strict=True))
    model = Model()
    with pytest.warns(UserWarning, match="affines were rounded"):
        lightning.Trainer(max_steps=1, precision="bf16-true", enable_checkpointing=False, **options).fit(
            model, loader()
        )
    assert model.seen[0][1].dtype == torch.bfloat16
