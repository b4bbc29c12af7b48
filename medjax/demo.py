"""`medjax demo`: a real MRI augmented as a batch, and a small 3D U-Net that learns from it, on whatever device JAX has.

The brain is cut in two: a contiguous third, at the front, is held out, and no training patch touches it. Training
draws patches from the rest, augments each batch inside the compiled step, and is scored on the part held out.
"""

import importlib.util
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import medjax as mj
from medjax.errors import needs_extra
from medjax.pictures import PLANES, draw, figure

STEPS = 900
PATCH, MARGIN, BATCH = 48, 12, 2
WIDTHS = (16, 32)
HELD_OUT = 1 / 3


class Split(NamedTuple):
    """The subject in two: voxels below `cut` along the second axis are trained on, the others held out."""

    training: mj.Subject
    held_out: mj.Subject
    cut: int


def run(image: Path | None, label: Path | None, out: Path, seed: int, steps: int) -> dict[str, float]:
    """The whole demo; writes pictures into `out`, prints and returns the scores."""
    start = time.perf_counter()
    if (image is None) != (label is None):
        raise ValueError("give both --image and --label, or neither for the MNI152 brain")
    if steps < 2:
        raise ValueError(f"--steps must be at least 2, got {steps}")
    subject = prepared(mni() if image is None else mj.Subject(image=mj.ScalarImage(image), label=mj.LabelMap(label)))
    names = subject.names
    split = cut_in_two(subject)
    print(f"{subject.image} on {jax.devices()[0].device_kind}")
    out.mkdir(parents=True, exist_ok=True)
    key = jax.random.key(seed)
    gallery(subject, split.cut, key, out)
    mj.plot_batch(speed(subject, key)).savefig(out / "batch.png", dpi=110)
    model = train(split.training, len(names) + 1, key, steps)
    scores = {}
    other = mj.Compose([mj.Gamma(0.6), mj.BiasField(np.eye(1, 20, 4)[0] * 0.6)])
    for name, held in (("held out", split.held_out), ("held out, other contrast", other(split.held_out))):
        found = predict(model, held)
        dice = dice_scores(found, held.label.numpy()[0], len(names) + 1)
        scores[name] = float(np.mean(list(dice.values())))
        each = ", ".join(f"{names[c - 1]} {d:.3f}" for c, d in dice.items())
        print(f"Dice, {name}: {each}, mean {scores[name]:.3f}")
        picture(held, found, out / f"prediction_{name.replace(' ', '_').replace(',', '')}.png")
    print(f"pictures in {out}, {time.perf_counter() - start:.0f} s in all")
    return scores


# -- data


def mni() -> mj.Subject:
    """The MNI152 T1, labelled 1 where grey matter and 2 where white matter is likeliest; shipped by nilearn."""
    found = importlib.util.find_spec("nilearn")
    if found is None or found.origin is None:
        needs_extra("nilearn", "demo", "the demo's brain")
    folder = Path(found.origin).parent / "datasets" / "data"
    t1, grey, white = (
        mj.ScalarImage(folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz") for name in ("t1", "gm", "wm")
    )
    tissues = np.concatenate([grey.numpy(), white.numpy()]).astype(np.float32)
    rest = tissues.max() - tissues.sum(0, keepdims=True)
    label = np.concatenate([rest, tissues]).argmax(0)[None].astype(np.uint8)
    return mj.Subject(image=t1, label=mj.LabelMap(label, t1.affine), names=("grey", "white"))


def prepared(subject: mj.Subject) -> mj.Subject:
    """Canonical axes, the label on the image's grid, intensities from 0 to 1, labels 1, 2, ... of the given `names`."""
    for name, image in subject.images.items():
        if image.shape[0] != 1:
            raise ValueError(f"the demo takes one channel, the {name} has {image.shape[0]}")
    on_one_grid = mj.Resample("image", include=["label"])
    subject = mj.Compose([mj.ToCanonical(), on_one_grid, mj.RescaleIntensity(percentiles=(0, 99.9))])(subject.load())
    label = subject.label.numpy()
    found = np.unique(label[label != 0])
    if not 0 < found.size < 256:
        raise ValueError(f"the label map has {found.size} labels where the image is; the demo takes 1 to 255")
    numbers = np.where(label == 0, 0, np.searchsorted(found, label) + 1).astype(np.uint8)
    names = subject.metadata.get("names", tuple(f"label {value:g}" for value in found))
    return subject.replace(label=subject.label.replace(data=numbers), names=names)


def cut_in_two(subject: mj.Subject) -> Split:
    """A third of the labelled voxels, all those furthest along the second axis, is held out."""
    along = (subject.label.numpy()[0] > 0).sum((0, 2))
    cut = int(np.searchsorted(np.cumsum(along), (1 - HELD_OUT) * along.sum()))
    size = subject.image.spatial_shape
    if cut < PATCH + 2 * MARGIN or min(size[0], size[2]) < PATCH + 2 * MARGIN:
        raise ValueError(
            f"the volume, {size}, is too small: training needs {PATCH + 2 * MARGIN} voxels along each axis"
        )
    parts = []
    for start, end in ((0, cut), (cut, size[1])):
        affine = np.asarray(subject.image.affine) @ np.array(
            [[1, 0, 0, 0], [0, 1, 0, start], [0, 0, 1, 0], [0, 0, 0, 1.0]]
        )
        images = {n: i.replace(data=i.numpy()[:, :, start:end], affine=affine) for n, i in subject.images.items()}
        parts.append(mj.Subject(images))
    return Split(parts[0], parts[1], cut)


def augmentation(shape: int | tuple[int, ...] = PATCH) -> mj.Compose:
    """From a cut with a margin to an augmented patch of `shape`: all that is spatial is one gather of it alone."""
    return mj.Compose([
        mj.RandomAffine(scales=0.15, degrees=15, p=0.8), mj.RandomElasticDeformation(max_displacement=4, p=0.3),
        mj.RandomFlip(axes="LR"), mj.CropOrPad(shape), mj.RandomBiasField(0.3, p=0.5), mj.RandomGamma(0.5, p=0.8),
        mj.RandomBlur((0, 1), p=0.2), mj.RandomNoise(std=(0, 0.05), p=0.5),
    ])  # fmt: skip


def starts(label: np.ndarray) -> np.ndarray:
    """First voxels (N, 3) of the cuts about every labelled voxel, moved so that each lies in the volume."""
    size = PATCH + 2 * MARGIN
    return np.clip(np.argwhere(label[0] > 0) - size // 2, 0, np.array(label.shape[1:]) - size).astype(np.int16)


def cuts(arrays: dict[str, jax.Array], places: jax.Array, key: jax.Array) -> dict[str, jax.Array]:
    """A batch of cuts (B, C, n, n, n) about labelled voxels drawn at random."""
    chosen = places[jax.random.randint(key, (BATCH,), 0, len(places))].astype(jnp.int32)
    size = (PATCH + 2 * MARGIN,) * 3

    def one(start: jax.Array) -> dict[str, jax.Array]:
        return {n: jax.lax.dynamic_slice(a, (0, *start), (a.shape[0], *size)) for n, a in arrays.items()}

    return jax.vmap(one)(chosen)


# -- network


class Convolution(nnx.Module):
    """3 x 3 x 3 convolution and leaky ReLU, as a 2-D convolution of three neighbouring slices: faster on CPUs."""

    def __init__(self, channels: int, width: int, rngs: nnx.Rngs):
        self.inner = nnx.Conv(3 * channels, width, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)])
        slices = [padded[:, i : i + x.shape[1]] for i in range(3)]
        return nnx.leaky_relu(self.inner(jnp.concatenate(slices, -1)))


class UNet(nnx.Module):
    """Two levels on voxels folded two by two by two into channels, and a head at full resolution."""

    def __init__(self, classes: int, rngs: nnx.Rngs):
        fine, coarse = WIDTHS
        self.down = nnx.List([Convolution(8, fine, rngs), Convolution(fine, fine, rngs)])
        self.bottom = nnx.List([Convolution(fine, coarse, rngs), Convolution(coarse, coarse, rngs)])
        self.up = nnx.Linear(coarse, 8 * fine, rngs=rngs)
        self.join = Convolution(2 * fine, fine, rngs)
        self.unfold = nnx.Linear(fine, 64, rngs=rngs)
        self.head = nnx.List([nnx.Linear(9, 16, rngs=rngs), nnx.Linear(16, classes, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """(B, I, J, K, 1), axes divisible by 4, to logits (B, I, J, K, classes)."""
        y = folded(x)
        for layer in self.down:
            y = layer(y)
        z = nnx.max_pool(y, (2, 2, 2), (2, 2, 2))
        for layer in self.bottom:
            z = layer(z)
        y = self.join(jnp.concatenate([y, unfolded(self.up(z))], -1))
        y = jnp.concatenate([x, unfolded(self.unfold(y))], -1)
        return self.head[1](nnx.leaky_relu(self.head[0](y)))


def folded(x: jax.Array) -> jax.Array:
    """(B, 2I, 2J, 2K, C) to (B, I, J, K, 8C)."""
    b, i, j, k, c = x.shape
    x = x.reshape(b, i // 2, 2, j // 2, 2, k // 2, 2, c).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(b, i // 2, j // 2, k // 2, 8 * c)


def unfolded(x: jax.Array) -> jax.Array:
    """(B, I, J, K, 8C) to (B, 2I, 2J, 2K, C)."""
    b, i, j, k, c = x.shape
    x = x.reshape(b, i, j, k, 2, 2, 2, c // 8).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(b, 2 * i, 2 * j, 2 * k, c // 8)


def train(subject: mj.Subject, classes: int, key: jax.Array, steps: int) -> UNet:
    """A network trained on augmented patches; cutting, augmentation and update are one compiled step."""
    arrays = {name: jnp.asarray(image.data) for name, image in subject.images.items()}
    places, augment = jnp.asarray(starts(subject.label.numpy())), augmentation()
    model = UNet(classes, nnx.Rngs(int(jax.random.randint(key, (), 0, 2**30))))
    rate = optax.warmup_cosine_decay_schedule(0, 3e-3, max(steps // 20, 1), steps)
    optimizer = nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)

    @nnx.jit
    def step(model: UNet, optimizer: nnx.Optimizer, key: jax.Array) -> jax.Array:
        batch = cuts(arrays, places, jax.random.fold_in(key, 0))
        batch = augment.batch(batch, jax.random.fold_in(key, 1), labels=["label"])
        image, truth = mj.channels_last(batch["image"]), jax.nn.one_hot(batch["label"][:, 0], classes)

        def loss(model: UNet) -> jax.Array:
            return optax.softmax_cross_entropy(model(image), truth).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    recent: list[float] = []
    with bar(steps) as advance:
        for i in range(steps):
            recent = [*recent[-49:], float(step(model, optimizer, jax.random.fold_in(key, i)))]
            advance(np.mean(recent))
    print(f"loss {np.mean(recent):.3f} (mean of the last {len(recent)} of {steps} steps)")
    return model


@contextmanager
def bar(steps: int) -> Iterator[Any]:
    """A live progress bar; gives a function that takes the loss after each step."""
    try:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        needs_extra("rich", "demo", "the demo's progress bar")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("compiling", total=steps)
        yield lambda loss: progress.update(task, advance=1, description=f"training, loss {loss:.3f}")


def predict(model: UNet, subject: mj.Subject) -> np.ndarray:
    """Labels (I, J, K) of a whole volume in one pass."""
    data = np.asarray(subject.image.data)
    padded = np.pad(data, [(0, 0), *((0, -n % 4) for n in data.shape[1:])])
    found = nnx.jit(lambda model, x: model(x).argmax(-1))(model, mj.channels_last(jnp.asarray(padded))[None])
    return np.asarray(found)[0][tuple(map(slice, data.shape[1:]))]


def dice_scores(found: np.ndarray, truth: np.ndarray, classes: int) -> dict[int, float]:
    """2 |A and B| / (|A| + |B|) of each label but the background; 1 where neither has it."""
    scores = {}
    for c in range(1, classes):
        total = (found == c).sum() + (truth == c).sum()
        scores[c] = float(2 * ((found == c) & (truth == c)).sum() / total) if total else 1.0
    return scores


# -- pictures and speed


def gallery(subject: mj.Subject, cut: int, key: jax.Array, out: Path) -> None:
    """Pictures of each transform and of what is held out."""
    transforms = {
        "affine": mj.RandomAffine(scales=0.2, degrees=20),
        "elastic": mj.RandomElasticDeformation(max_displacement=10),
        "flip": mj.Flip("LR"),
        "crop or pad": mj.CropOrPad((128, 256, 128)),
        "low resolution": mj.Resample(4),
        "bias field": mj.RandomBiasField(0.8),
        "noise": mj.RandomNoise(std=(0.1, 0.1)),
        "gamma": mj.Gamma(0.5),
        "blur": mj.Blur(2),
        "z-normalization": mj.ZNormalization(),
        "rescale": mj.RescaleIntensity(percentiles=(5, 80)),
    }
    mj.plot_transforms(mj.Subject(image=subject.image), transforms, key).savefig(out / "transforms.png", dpi=110)
    marked = np.zeros(subject.label.shape, np.uint8)
    marked[:, :, cut:] = 3
    shown = subject.replace(label=subject.label.replace(data=marked))
    made, axes = figure(1, 3, 3)
    for ax, plane in zip(axes[0], PLANES, strict=True):
        draw(ax, shown.images, "image", plane, "held out: red" if plane == "sagittal" else "")
    made.savefig(out / "held_out.png", dpi=110)


def picture(subject: mj.Subject, found: np.ndarray, path: Path) -> None:
    """What was found beside the truth."""
    made, axes = figure(1, 2, 4)
    guessed = subject.replace(label=subject.label.replace(data=found[None].astype(np.uint8)))
    for ax, title, shown in zip(axes[0], ("truth", "found"), (subject, guessed), strict=True):
        draw(ax, shown.images, "image", "axial", title)
    made.savefig(path, dpi=110)


def speed(subject: mj.Subject, key: jax.Array, size: int = 4, repeats: int = 2) -> mj.Subject:
    """Print how many whole volumes are augmented in a second, with and without compiling; gives the last batch."""
    pipeline = augmentation(subject.image.spatial_shape)
    batch = result = jax.device_put(mj.stack([subject] * size))
    times = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        result = jax.block_until_ready(pipeline.batch(batch, jax.random.fold_in(key, i)))
        times.append(time.perf_counter() - start)
    rest, first = sum(times[1:]), times[0]
    shape = " x ".join(map(str, subject.image.spatial_shape))
    after, whole = size * repeats / rest, size * (repeats + 1) / (first + rest)
    print(f"augmented volumes of {shape} per second: {after:.1f}; {whole:.2f} with the {first:.1f} s of a first call")
    return result
