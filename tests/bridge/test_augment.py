"""A pipeline inside torch: a module, a differentiable function, beside MONAI."""

import pytest
import torch
from bridge.shared import tensors
from bridge.shared import time_limit as time_limit

import torch_bridge as tio


def pipeline():
    return tio.Compose([tio.RandomAffine(degrees=10, p=0.7), tio.RandomNoise(std=(0.5, 1)), tio.RandomFlip(axes=0)])


def test_every_element_and_every_batch_is_augmented_differently():
    augment, batch = tio.Augment(pipeline(), seed=3), torch.rand(1, 1, 8, 8, 8).expand(3, 1, 8, 8, 8)
    before = batch.clone()
    first, second = augment(batch), augment(batch)
    assert first.shape == batch.shape and torch.equal(batch, before)
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    assert torch.equal(tio.Augment(pipeline(), seed=3)(batch), first)
    assert not torch.equal(tio.Augment(pipeline(), seed=4)(batch), first)


def test_its_state_makes_training_go_on():
    model = torch.nn.Sequential(tio.Augment(pipeline(), seed=3), torch.nn.Conv3d(1, 2, 3))
    batch = torch.rand(2, 1, 8, 8, 8)
    model[0](batch)
    state = model.state_dict()
    expected = model[0](batch)
    other = torch.nn.Sequential(tio.Augment(pipeline()), torch.nn.Conv3d(1, 2, 3))
    other.load_state_dict(state)
    assert torch.equal(other[0](batch), expected)


def test_ranks_have_streams_of_their_own(monkeypatch):
    batch, found = torch.rand(2, 1, 8, 8, 8), []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        found.append(tio.Augment(pipeline())(batch))
    assert not torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dictionaries_keep_their_types_and_the_rest(dtype):
    batch = {
        "image": torch.rand(2, 1, 8, 8, 8).to(dtype),
        "label": torch.randint(0, 4, (2, 1, 8, 8, 8)),
        "age": torch.tensor([1, 2]),
        "name": ["a", "b"],
    }
    result = tio.Augment(pipeline())(batch)
    assert list(result) == list(batch) and result["image"].dtype == dtype and result["label"].dtype == torch.int64
    assert set(result["label"].unique().tolist()) <= {0, 1, 2, 3}
    assert torch.equal(result["age"], batch["age"]) and result["name"] == ["a", "b"]
    with pytest.raises(ValueError, match="seg"):
        tio.Augment(pipeline(), labels=["seg"])(batch)


def test_batches_of_the_bridge_are_taken():
    batch = torch.utils.data.default_collate([tensors(age=1), tensors(1, age=2)])
    result = tio.Augment(pipeline())(batch)
    assert isinstance(result, tio.Batch) and result.t1.shape == batch.t1.shape and result.age.tolist() == [1, 2]


@pytest.mark.parametrize(
    "t", [tio.RandomAffine(degrees=10), tio.Gamma(1.3), tio.Compose([tio.RandomBlur(1), tio.Flip(0)])]
)
def test_gradients_are_those_of_finite_differences(t):
    torch.manual_seed(0)
    tensor = (torch.rand(1, 4, 4, 4, dtype=torch.float64) + 0.5).requires_grad_()
    f = tio.differentiable(t)
    assert torch.autograd.gradcheck(lambda x: f(x, 3), [tensor])
    assert torch.autograd.gradgradcheck(lambda x: f(x, 3).pow(2), [tensor])


def test_it_computes_what_the_pipeline_does_in_the_type_that_it_gets():
    tensor = tensors().t1.data
    f = tio.differentiable(pipeline())
    torch.testing.assert_close(f(tensor, 5), pipeline()(tensor, 5), atol=1e-5, rtol=1e-5)
    leaf = tensor.bfloat16().requires_grad_()
    tio.differentiable(tio.RandomGamma())(leaf, 5).float().sum().backward()
    assert leaf.grad.dtype == torch.bfloat16 and torch.isfinite(leaf.grad).all()
    with pytest.raises(TypeError, match="int64"):
        f(torch.ones(1, 2, 2, 2, dtype=torch.int64))
    with pytest.raises(TypeError, match="not known while tracing"):
        tio.differentiable(tio.Resample(2.0))(tensor)


def test_it_trains():
    layer, f = torch.nn.Conv3d(1, 1, 3, padding=1), tio.differentiable(tio.RandomAffine(degrees=10))
    f(layer(torch.rand(1, 1, 8, 8, 8))[0], 2).pow(2).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_monais_dictionaries_and_transforms():
    monai = pytest.importorskip("monai")
    from monai.data.meta_tensor import MetaTensor

    subject = tensors()
    data = {
        "image": MetaTensor(subject.t1.data, affine=torch.from_numpy(subject.t1.affine)),
        "label": subject.label.data,
        "id": 4,
    }
    t = tio.as_monai(tio.Compose([tio.Resample(2.0), tio.RandomNoise()]), images=["image"], labels=["label"])
    with pytest.raises(ValueError):  # the label has no affine: they are not on one grid
        t({"image": data["image"], "label": torch.ones(1, 3, 3, 3)})
    compose = monai.transforms.Compose([monai.transforms.ScaleIntensityd("image"), t])
    result = compose({**data, "label": MetaTensor(data["label"], affine=data["image"].affine)})
    expected = tio.Resample(2.0)(subject)
    assert result["id"] == 4 and result["label"].shape == expected.label.shape
    torch.testing.assert_close(torch.as_tensor(result["image"].affine), torch.from_numpy(expected.t1.affine))
    assert torch.equal(result["label"].as_tensor(), expected.label.data)
    back = tio.from_monai(monai.transforms.ScaleIntensity(0, 2))(subject)
    assert back.t1.data.max() == 2 and torch.equal(back.label.data, subject.label.data)
    batch = {"image": MetaTensor(torch.rand(2, 1, 8, 8, 8), affine=torch.eye(4).repeat(2, 1, 1))}
    assert isinstance(tio.Augment(pipeline())(batch)["image"], MetaTensor)
