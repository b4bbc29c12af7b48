"""A torch network's predictions are those of the same network in JAX."""

import jax.numpy as jnp
import pytest
import torch
from bridge.shared import tensors

import medjax as mj
import torch_bridge as tio

CENTRES = (0.2, 0.45, 0.6)


class Network(torch.nn.Module):
    """Scores by intensity and by place in the patch, so that mirroring counts."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        ramp = torch.linspace(0, 0.1, x.shape[2])[None, None, :, None, None]
        return torch.cat([-20 * self.scale * (x - c + ramp) ** 2 for c in CENTRES], 1)


def network(scale, batch):
    x = batch["t1"].data
    ramp = jnp.linspace(0, 0.1, x.shape[2])[None, None, :, None, None]
    return jnp.concatenate([-20 * scale * (x - c + ramp) ** 2 for c in CENTRES], 1)


def test_a_torch_network_predicts_what_the_same_network_in_jax_does():
    subject = tensors()
    only = tio.Subject(t1=subject.t1)
    options = dict(patch_size=10, flips=(0,), space="probabilities", probabilities=True)
    labels, chances = tio.predict([Network(1.0), Network(0.3)], only, tio.Compose([tio.Resample(1.5)]), **options)
    image = mj.ScalarImage(subject.t1.data.numpy(), subject.t1.affine)
    want, wanted = mj.predict(
        network, mj.Subject(t1=image), mj.Compose([mj.Resample(1.5)]), models=[jnp.float32(1), jnp.float32(0.3)],
        **options,
    )  # fmt: skip
    torch.testing.assert_close(chances.data, torch.from_numpy(wanted.numpy()), atol=1e-5, rtol=0)
    assert isinstance(labels, tio.LabelMap) and labels.shape == subject.t1.shape
    assert (labels.data.numpy() == want.numpy()).mean() > 0.999
    with pytest.raises(ValueError, match="steps in torch"):
        tio.predict(Network(), only, tio.Compose([tio.Lambda(lambda x: x)]), patch_size=8)


def test_a_network_is_evaluated_and_left_as_it_was():
    class Noisy(Network):
        def __init__(self):
            super().__init__()
            self.off, self.frozen, self.seen = torch.nn.Dropout(0.9), torch.nn.Dropout(0.5).eval(), []

        def forward(self, x):
            self.seen.append(self.training)
            if len(self.seen) > fails_at:
                raise MemoryError
            return super().forward(self.off(x))

    only, pipeline = tio.Subject(t1=tensors().t1), tio.Compose([tio.Resample(1.5)])
    fails_at = 1000
    net = Noisy().train()
    net.frozen.eval()
    first, second = (tio.predict(net, only, pipeline, patch_size=10).data for _ in range(2))
    assert torch.equal(first, second) and not any(net.seen)
    assert net.training and net.off.training and not net.frozen.training
    fails_at = len(net.seen)
    with pytest.raises(MemoryError):
        tio.predict(net, only, pipeline, patch_size=10)
    assert net.training and net.off.training and not net.frozen.training
