"""A pipeline inside torch: a module, a differentiable function."""

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

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


def test_gradients_of_batches_and_in_torch_func():
    t = tio.Compose([tio.RandomAffine(degrees=10), tio.RandomGamma()])
    f, x = tio.differentiable(t), torch.rand(3, 1, 5, 4, 4) + 0.5
    torch.testing.assert_close(f(x, 3), t.batch(x, 3), atol=1e-5, rtol=1e-5)  # each element by its own key
    leaf = x[0].clone().requires_grad_()
    f(leaf, 3).square().sum().backward()
    torch.testing.assert_close(torch.func.grad(lambda one: f(one, 3).square().sum())(x[0]), leaf.grad)
    one_by_one = torch.stack([f(one, 3) for one in x])
    torch.testing.assert_close(torch.func.vmap(lambda one: f(one, 3))(x), one_by_one, atol=1e-5, rtol=1e-5)
    per_sample = torch.func.vmap(torch.func.grad(lambda one: f(one, 3).square().sum()))(x)
    torch.testing.assert_close(per_sample[0], leaf.grad, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="C, I, J, K"):
        f(torch.rand(4, 4, 4))


# -- labels in dictionaries


def shift():
    return tio.RandomFlip(axes=(0, 1, 2), flip_probability=1.0)


def test_labels_without_a_channel_move_with_their_image():
    label = torch.randint(0, 3, (2, 6, 7, 8))
    batch = {"image": label[:, None].float() + 0.5, "label": label, "age": torch.tensor([3, 4])}
    result = tio.Augment(tio.Compose([tio.RandomAffine(degrees=20), tio.CropOrPad(5)]))(batch)
    assert result["label"].shape == (2, 5, 5, 5) and result["label"].dtype == torch.int64
    result = tio.Augment(shift())(batch)
    assert torch.equal(result["label"], label.flip(1, 2, 3)) and torch.equal(result["age"], batch["age"])
    assert torch.equal(result["image"][:, 0] - 0.5, result["label"].float())
    for stray in (label[0], label[:, None, None]):
        with pytest.raises(ValueError, match="would not move with it"):
            tio.Augment(shift())({**batch, "label": stray})


def test_floats_that_seem_to_be_labels_are_warned_of_once():
    image, label = torch.rand(2, 1, 6, 6, 6), torch.randint(0, 3, (2, 1, 6, 6, 6)).float()
    for name, values in {"label": label + 0.5, "brain_masks": image, "anything": label}.items():
        augment = tio.Augment(tio.RandomNoise())
        with pytest.warns(UserWarning, match=f"'{name}'.*labels="):
            augment({"image": image, name: values})
        augment({"image": image, name: values})  # warnings are errors
    augment = tio.Augment(tio.RandomNoise())
    augment(
        {"image": torch.zeros(2, 1, 6, 6, 6), "labelled": (100 * image).round()}
    )  # nothing yet, and too many values
    kept = tio.Augment(tio.RandomNoise(std=(1, 1)), labels=["label"])({"image": image, "label": label})
    assert torch.equal(kept["label"], label) and not torch.equal(kept["image"], image)
    tio.Augment(tio.RandomNoise(), labels=[])({"image": image, "label": label})


# -- a module among modules


def test_torch_compile_calls_it_between_what_it_compiles():
    augment = tio.Augment(pipeline(), seed=3)
    model = torch.nn.Sequential(augment, torch.nn.Conv3d(1, 1, 1))
    x = torch.rand(2, 1, 8, 8, 8)
    expected = model[1](tio.Augment(pipeline(), seed=3)(x))
    fast = torch.compile(model, backend="eager")
    torch.testing.assert_close(fast(x), expected)
    assert not torch.equal(fast(x), expected) and augment.count == 2


def test_exports_are_refused_by_a_sentence():
    model, x = tio.Augment(pipeline()), torch.rand(2, 1, 8, 8, 8)
    with pytest.raises(RuntimeError, match="export the network without it"):
        torch.export.export(model, (x,))
    with pytest.raises(RuntimeError, match="export the network without it"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.trace(model, x)


def test_threads_that_share_it_draw_differently():
    augment, x = tio.Augment(pipeline(), seed=1), torch.rand(1, 1, 6, 6, 6)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(augment, [x] * 24))
    alone = tio.Augment(pipeline(), seed=1)
    expected = {alone(x).sum().item() for _ in range(24)}
    assert {result.sum().item() for result in results} == expected and len(expected) > 16 and augment.count == 24


def test_without_a_seed_it_draws_from_torchs_generator():
    x, found = torch.rand(1, 1, 6, 6, 6), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        augment = tio.Augment(tio.RandomNoise(std=(1, 1)), seed=None)
        found.append((augment(x), augment(x)))
    assert torch.equal(found[0][1], found[1][1]) and not torch.equal(*found[0])
    assert not torch.equal(found[0][0], found[2][0])
    torch.manual_seed(9)
    fixed = tio.Augment(tio.RandomNoise(std=(1, 1)), seed=4)(x)
    assert torch.equal(tio.Augment(tio.RandomNoise(std=(1, 1)), seed=4)(x), fixed)
    for seed in (1.5, True, "4"):
        with pytest.raises(TypeError, match="seed"):
            tio.Augment(pipeline(), seed=seed)


@pytest.mark.parametrize("seed", [3, 2**63 + 5, None])
def test_its_state_is_of_tensors_and_may_be_missing(seed):
    model = torch.nn.Sequential(tio.Augment(pipeline(), seed=seed), torch.nn.Conv3d(1, 2, 3))
    model[0].count = 7
    state = model.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())  # as safetensors wants it
    other = torch.nn.Sequential(tio.Augment(pipeline(), seed=1), torch.nn.Conv3d(1, 2, 3))
    other.load_state_dict(state)
    assert (other[0].seed, other[0].count) == (seed, 7)
    other.load_state_dict({name: value for name, value in state.items() if "_extra_state" not in name})
    assert (other[0].seed, other[0].count) == (seed, 7)
    copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert copied[0].count == 7


def test_images_of_two_axes_are_refused_by_that_name():
    flat = torch.rand(2, 1, 8, 8)
    for batch in (flat, {"image": flat}, {"image": flat, "label": flat[:, 0].long()}):
        with pytest.raises(ValueError, match=r"two axes is one slice: give tensor\[..., None\]"):
            tio.Augment(shift())(batch)
    assert torch.equal(tio.Augment(shift())(flat[..., None])[..., 0], flat.flip(2, 3))


def test_empty_batches_come_back_empty():
    augment = tio.Augment(tio.Compose([tio.RandomAffine(degrees=5), tio.CropOrPad((4, 5, 6))]))
    result = augment({"image": torch.rand(0, 2, 8, 8, 8), "label": torch.zeros(0, 8, 8, 8, dtype=torch.int64)})
    assert result["image"].shape == (0, 2, 4, 5, 6) and result["label"].shape == (0, 4, 5, 6)
    assert result["label"].dtype == torch.int64
