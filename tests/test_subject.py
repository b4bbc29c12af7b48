"""Images and subjects: what they hold, how they stack, pickle and are read, with nibabel and SimpleITK as references."""

import copy
import pickle
import warnings

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
import SimpleITK
from conftest import OBLIQUE, T1, blobs, compilations, oriented, small_subject

import medjax as mj
from medjax import io

SHAPE = (5, 6, 7)


def volume(channels=1, seed=0, dtype=np.float32):
    return (np.random.default_rng(seed).uniform(0, 99, (channels, *SHAPE))).astype(dtype)


@pytest.fixture
def path(tmp_path):
    """A NIfTI file written by nibabel, with a header that says more than geometry."""
    image = nibabel.Nifti1Image(volume(dtype=np.int16)[0], OBLIQUE)
    image.header["descrip"], image.header["aux_file"] = b"a description", b"aux"
    image.header.set_xyzt_units("mm", "sec")
    image.to_filename(tmp_path / "t1.nii.gz")
    return tmp_path / "t1.nii.gz"


@pytest.fixture
def reads(monkeypatch):
    """The paths whose voxels were read."""
    seen, read = [], io.registry.read

    def counted(path):
        seen.append(path)
        return read(path)

    monkeypatch.setattr(io.registry, "read", counted)
    return seen


# -- what an image says of itself


@pytest.mark.parametrize(
    "affine", [OBLIQUE, oriented("PIR", (1, 2, 3), (10, -500, 90)), np.eye(4)], ids=["oblique", "PIR", "identity"]
)
def test_geometry_is_nibabels(affine):
    image, peer = mj.ScalarImage(volume(), affine), nibabel.Nifti1Image(volume()[0], affine)
    assert image.shape == (1, *SHAPE) and image.spatial_shape == SHAPE
    np.testing.assert_allclose(image.spacing, nibabel.affines.voxel_sizes(affine), atol=1e-12)
    assert image.orientation == nibabel.aff2axcodes(affine)
    np.testing.assert_array_equal(image.origin, affine[:3, 3])
    np.testing.assert_allclose(image.direction * image.spacing, affine[:3, :3], atol=1e-12)
    ends = nibabel.affines.apply_affine(affine, [[0, 0, 0], np.array(SHAPE) - 1])
    np.testing.assert_allclose(image.bounds, ends, atol=1e-9)
    np.testing.assert_allclose(image.center, ends.mean(0), atol=1e-9)
    np.testing.assert_array_equal(image.affine, peer.affine)
    assert image.affine.dtype == np.float64


def test_the_affine_is_the_identity_unless_given():
    np.testing.assert_array_equal(mj.LabelMap(volume()).affine, np.eye(4))


@pytest.mark.parametrize("affine, message", [
    (np.diag([1.0, 0, 1, 1]), "singular"), (np.diag([1.0, np.nan, 1, 1]), "not finite"),
    (np.diag([1.0, np.inf, 1, 1]), "not finite"), (np.eye(3), r"shape \(4, 4\)"), (np.ones((4, 4)), "singular|last row"),
    (np.eye(4) + np.eye(4, k=-3), "last row"),
])  # fmt: skip
def test_unsound_affines_are_refused(affine, message):
    with pytest.raises(ValueError, match=f"affine.*{message}|last row of affine"):
        mj.ScalarImage(volume(), affine)


@pytest.mark.parametrize("source", [blobs(SHAPE), np.zeros(3), np.zeros((1, 1, *SHAPE)), 3.0, "nothing.xyz", {}])
def test_what_is_no_volume_is_refused(source):
    with pytest.raises((ValueError, TypeError), match="source|nothing.xyz"):
        mj.ScalarImage(source).shape  # noqa: B018


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.nii"):
        mj.ScalarImage(tmp_path / "absent.nii").load()


def test_image_itself_is_abstract():
    with pytest.raises(TypeError, match="ScalarImage .* LabelMap"):
        mj.Image(volume())


def test_nothing_is_changed_in_place():
    subject = small_subject(age=3)
    with pytest.raises(AttributeError, match=r"replace\(affine=...\)"):
        subject.t1.affine = np.eye(4)
    with pytest.raises(AttributeError, match=r"replace\(age=...\)"):
        subject.age = 4
    with pytest.raises(ValueError, match="Did you mean 'affine'"):
        subject.t1.replace(afine=np.eye(4))
    moved = subject.t1.replace(affine=np.eye(4))
    np.testing.assert_array_equal(subject.t1.affine, OBLIQUE)
    np.testing.assert_array_equal(moved.affine, np.eye(4))
    assert subject.replace(age=4).age == 4 and subject.age == 3


def test_a_subject_is_one_store_in_the_given_order():
    t1, t2 = mj.ScalarImage(volume()), mj.ScalarImage(volume(seed=1))
    subject = mj.Subject({"t2": t2}, t1=t1, age=45, seg=None)
    assert list(subject) == ["t2", "t1", "age", "seg"] and list(subject.images) == ["t2", "t1"]
    assert subject.t1 is subject["t1"] is subject.get_images_dict()["t1"]
    assert subject.metadata == {"age": 45} and "seg" in subject and len(subject) == 4
    replaced = subject.replace(t1=t2)
    assert replaced.t1 is replaced["t1"] is t2
    for read in (lambda: subject.t3, lambda: subject["t3"]):
        with pytest.raises((AttributeError, KeyError), match="no 't3'; it has t2, t1, age, seg"):
            read()


# -- files


def test_a_path_is_read_when_its_voxels_are_asked_for(path, reads):
    image = mj.ScalarImage(path)
    peer = nibabel.load(path)
    assert image.shape == (1, *peer.shape) and image.dtype == peer.get_data_dtype()
    np.testing.assert_allclose(image.affine, peer.affine, atol=1e-9)
    assert "t1.nii.gz" in repr(image) and image.path == path
    assert reads == []
    np.testing.assert_array_equal(image.numpy()[0], np.asarray(peer.dataobj))
    image.numpy()
    assert reads == [path]


def test_loading_is_a_copy_and_the_original_keeps_nothing(path, reads):
    subject = mj.Subject(t1=mj.ScalarImage(path), age=3)
    for _ in range(2):
        assert subject.load().t1.numpy().shape == (1, *SHAPE)
    assert len(reads) == 2
    flipped = mj.Flip(0)(subject)
    np.testing.assert_array_equal(flipped.t1.numpy(), np.asarray(nibabel.load(path).dataobj)[None, ::-1])
    mj.stack([subject, subject])
    assert subject.t1._data is None and len(reads) == 5


def test_drawing_reads_no_voxels(path, reads):
    subject = mj.Subject(t1=mj.ScalarImage(path))
    params = mj.Compose([mj.RandomAffine(), mj.RandomNoise()]).sample(jax.random.key(0), subject)
    assert reads == [] and len(params["members"]) == 2


def test_a_lazy_image_pickles_and_deepcopies_as_its_path(path, reads):
    image = mj.ScalarImage(path, note="x")
    image.numpy()
    for twin in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        assert twin._data is None and twin.path == path and twin.metadata["note"] == "x"
        np.testing.assert_array_equal(twin.numpy(), image.numpy())
    assert len(pickle.dumps(image)) < volume(dtype=np.int16).nbytes * 20
    assert len(reads) == 3


def test_an_affine_of_ones_own_stays_when_the_file_is_read(path):
    image = mj.ScalarImage(path, np.eye(4))
    np.testing.assert_array_equal(image.affine, np.eye(4))
    image.numpy()
    np.testing.assert_array_equal(image.affine, np.eye(4))
    assert image.load().replace(affine=OBLIQUE).affine is OBLIQUE


def test_a_list_of_files_becomes_channels(tmp_path):
    paths = [tmp_path / f"{i}.nii" for i in range(3)]
    for i, one in enumerate(paths):
        nibabel.Nifti1Image(volume(seed=i)[0], OBLIQUE).to_filename(one)
    image = mj.ScalarImage(paths)
    assert image.shape == (3, *SHAPE) and image.path == paths
    np.testing.assert_array_equal(image.numpy(), np.concatenate([volume(seed=i) for i in range(3)]))
    nibabel.Nifti1Image(volume()[0], np.eye(4)).to_filename(tmp_path / "other.nii")
    with pytest.raises(ValueError, match=r"0.nii and .*other.nii are not on one grid"):
        mj.ScalarImage([paths[0], tmp_path / "other.nii"]).load()


def test_a_reader_of_ones_own(tmp_path):
    path = tmp_path / "volume.npy"
    np.save(path, volume())
    image = mj.ScalarImage(path, reader=lambda p: (np.load(p), OBLIQUE))
    np.testing.assert_array_equal(image.numpy(), volume())
    np.testing.assert_array_equal(image.affine, OBLIQUE)
    np.testing.assert_array_equal(mj.ScalarImage(path, reader=np.load).affine, np.eye(4))
    with pytest.raises(ValueError, match=r"reader gave shape \(5, 6, 7\).*volume.npy"):
        mj.ScalarImage(path, reader=lambda p: np.load(p)[0]).load()


def test_saving_keeps_what_the_header_said(path, tmp_path):
    """nibabel reads what was written: voxels, geometry, and the rest of the header of the file it came from."""
    subject = mj.Subject(t1=mj.ScalarImage(path))
    flipped = mj.Flip(0)(subject)
    flipped.t1.save(tmp_path / "out.nii.gz")
    before, after = nibabel.load(path), nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj)[::-1])
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-4)
    for field in ("descrip", "aux_file", "xyzt_units"):
        np.testing.assert_array_equal(after.header[field], before.header[field])
    assert after.get_data_dtype() == np.int16
    again = mj.ScalarImage(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(again.numpy(), flipped.t1.numpy())


def test_a_failed_save_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"out\.xyz"):
        mj.ScalarImage(volume()).save(tmp_path / "out.xyz")
    with pytest.raises(ValueError, match="out.nii"):
        mj.ScalarImage.of(volume().astype(np.complex64), np.eye(4)).save(tmp_path / "out.nii")
    assert list(tmp_path.iterdir()) == []


# -- other libraries


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_to_and_from_nibabel(channels, dtype):
    image = mj.ScalarImage(volume(channels, dtype=dtype), OBLIQUE)
    peer = image.to_nibabel()
    assert peer.shape == (SHAPE if channels == 1 else (*SHAPE, 3))
    np.testing.assert_allclose(peer.affine, OBLIQUE, atol=1e-4)
    want = image.numpy()[0] if channels == 1 else np.moveaxis(image.numpy(), 0, -1)
    np.testing.assert_array_equal(np.asarray(peer.dataobj), want)
    back = mj.ScalarImage(peer)
    np.testing.assert_array_equal(back.numpy(), image.numpy())
    assert back.dtype == dtype
    np.testing.assert_allclose(back.affine, OBLIQUE, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("affine", [OBLIQUE, oriented("PIR", (1, 2, 3), (10, -500, 90))], ids=["oblique", "PIR"])
def test_to_and_from_simpleitk(channels, affine):
    """SimpleITK says itself where a voxel lies (in LPS) and what it holds."""
    image = mj.ScalarImage(volume(channels), affine)
    peer = image.to_sitk()
    for index in ([0, 0, 0], [4, 5, 6], [1, 3, 2]):
        place = np.array(peer.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
        np.testing.assert_allclose(place, (affine @ [*index, 1])[:3], atol=1e-6)
        np.testing.assert_array_equal(np.ravel(peer.GetPixel(*index)), image.numpy()[:, *index])
    back = mj.ScalarImage(peer)
    np.testing.assert_array_equal(back.numpy(), image.numpy())
    np.testing.assert_allclose(back.affine, affine, atol=1e-9)


def test_a_file_written_by_simpleitk_lies_in_the_same_place(tmp_path):
    SimpleITK.WriteImage(mj.ScalarImage(volume(), OBLIQUE).to_sitk(), tmp_path / "itk.nii.gz")
    image = mj.ScalarImage(tmp_path / "itk.nii.gz")
    np.testing.assert_array_equal(image.numpy(), volume())
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-4)


def test_a_sheared_affine_is_no_simpleitk_image():
    with pytest.raises(ValueError, match="shear"):
        mj.ScalarImage(volume(), np.eye(4) + np.eye(4, k=1) * [[1], [0], [0], [0]]).to_sitk()


# -- pytrees and metadata


def test_the_leaves_are_voxels_and_affines():
    subject = small_subject(age=45)
    assert len(jax.tree.leaves(subject)) == 4
    doubled = jax.tree.map(lambda leaf: leaf * 2, subject)
    np.testing.assert_array_equal(doubled.label.numpy(), 2 * subject.label.numpy())
    assert doubled.age == 45 and isinstance(doubled.label, mj.LabelMap)
    names = [jax.tree_util.keystr(where) for where, _ in jax.tree_util.tree_leaves_with_path(subject)]
    assert names == ["['t1'].data", "['t1'].affine", "['label'].data", "['label'].affine"]


def test_metadata_never_recompiles():
    traces = []

    @jax.jit
    def bright(subject):
        traces.append(1)
        return subject.t1.data.max()

    for age, note in ((45, "a"), (46, "b"), ("unknown", {"deep": [1]})):
        subject = small_subject(age=age)
        bright(subject.replace(t1=subject.t1.replace(metadata={"note": note}), extra=age))
    assert traces == [1]


def test_metadata_is_never_stale():
    """A user's own jit gives none back; a transform gives each subject its own."""
    run = jax.jit(lambda subject: subject)
    for age in (45, 46):
        assert run(small_subject(age=age)).metadata == {}
        assert jax.vmap(lambda s: s)(mj.stack([small_subject(age=age)] * 2)).metadata == {}
        subject = small_subject(age=age)
        subject = subject.replace(t1=subject.t1.replace(metadata={"age": age}))
        got = mj.Compose([mj.Flip(0), mj.Gamma(2.0)])(subject)
        assert got.age == age and got.t1.metadata == {"age": age}


def test_other_metadata_compiles_nothing_in_a_transform():
    t = mj.Compose([mj.Affine(degrees=3), mj.Gamma(2.0)])
    t(small_subject(age=1))
    with compilations() as count:
        assert t(small_subject(age=2, site="x")).site == "x"
    assert count() == 0


def test_metadata_is_carried_through_a_batch():
    subjects = [small_subject(age=age, seed=age) for age in (1, 2, 3)]
    batch = mj.Gamma(2.0).batch(mj.stack(subjects))
    assert batch.age == (1, 2, 3)
    for got, want in zip(mj.unstack(batch), subjects):
        assert got.age == want.age
        np.testing.assert_allclose(got.t1.numpy(), want.t1.numpy() ** 2, atol=1e-6)


def labelled(i, shape=(6, 5, 4)):
    """A subject with a class label and a weight as arrays, and a name as metadata."""
    kind = np.int32(i) if i % 2 else np.asarray(i, np.int32)  # a scalar of NumPy's is as good as an array
    weight = np.array([i, 2.0 * i], np.float32)
    subject = small_subject(np.eye(4), shape, seed=i, y=kind, weight=weight, name=f"s{i}")
    return subject.replace(t1=subject.t1.replace(data=np.full((1, *shape), i, np.float32), metadata={"i": i}))


LABELLED = [labelled(i) for i in range(4)]
IDENTITY = mj.Compose([mj.Flip(0), mj.Flip(0), mj.Clamp(0, 99)])
"""It changes no voxel, and goes through programs."""


def first_batch(dataset):
    return next(iter(dataset))


def batches():
    """Each way to a batch of the four subjects, in any order."""
    import grain

    data, sampler = mj.SubjectsDataset(LABELLED, IDENTITY), mj.UniformSampler(3)
    own = mj.SubjectsDataset(LABELLED)
    return {
        "stack": lambda: mj.stack(LABELLED),
        "tree.map": lambda: jax.tree.map(lambda *x: np.stack(x), *LABELLED),
        "grain": lambda: first_batch(grain.MapDataset.source(own).batch(4).to_iter_dataset()),
        "loader": lambda: first_batch(mj.loader(data, 4, jax.random.key(1))),
        "loader without a transform": lambda: first_batch(mj.loader(own, 4, jax.random.key(1))),
        "queue": lambda: first_batch(mj.PatchQueue(data, sampler, 4, jax.random.key(1), samples_per_volume=1)),
        "batch": lambda: IDENTITY.batch(mj.stack(LABELLED)),
        "jit(batch)": lambda: jax.jit(IDENTITY.batch)(mj.stack(LABELLED)),
        "jit(vmap)": lambda: jax.jit(jax.vmap(IDENTITY))(mj.stack(LABELLED)),
        "called": lambda: mj.stack([IDENTITY(subject) for subject in LABELLED]),
        "sampled": lambda: mj.stack([sampler(subject, jax.random.key(0)) for subject in LABELLED]),
        "unstacked": lambda: mj.stack(mj.unstack(mj.stack(LABELLED))),
        "device_put": lambda: jax.device_put(mj.stack(LABELLED)),
        "pickled": lambda: pickle.loads(pickle.dumps(mj.stack(LABELLED))),
    }


@pytest.mark.parametrize("way", batches())
def test_a_class_label_that_is_an_array_reaches_a_compiled_step_beside_its_voxels(way):
    batch = batches()[way]()
    y, weight, voxels = jax.jit(lambda b: (b.y, b.weight, b.t1.data.reshape(4, -1)))(batch)
    assert y.shape == (4,) and sorted(y.tolist()) == [0, 1, 2, 3] and jnp.issubdtype(y.dtype, jnp.integer)
    np.testing.assert_array_equal(np.asarray(voxels), np.repeat(np.asarray(y, np.float32)[:, None], voxels.shape[1], 1))
    np.testing.assert_array_equal(weight, np.outer(y, [1, 2]))


def test_patches_of_one_subject_have_its_arrays_each():
    sampler, subject = mj.UniformSampler(3), LABELLED[2]
    for batch in (
        sampler.batch(subject, jax.random.key(0), 5),
        jax.jit(lambda s: sampler.batch(s, jax.random.key(0), 5))(subject),
    ):
        np.testing.assert_array_equal(batch.y, [2] * 5)
        np.testing.assert_array_equal(batch.weight, [[2, 4]] * 5)
    assert all(patch.y == 2 for patch in mj.GridSampler(subject, 3))


def test_another_label_compiles_nothing_and_an_epoch_is_one_program():
    traces = []

    @jax.jit
    def step(batch):
        traces.append(1)
        return batch.y.sum()

    for i in range(3):
        assert step(mj.stack([labelled(2 * i), labelled(2 * i + 1)])) == 4 * i + 1
    assert traces == [1]


def stacked_by_numpy(subjects):
    return jax.tree.map(lambda *x: np.stack(x), *subjects)


def test_metadata_of_one_subject_does_not_stand_for_a_batch():
    """Of the subject, of its images, of its points: dropped where leaves are stacked, taken apart or cut by JAX."""

    def made(i):
        points = mj.Points(np.full((2, 3), i), labels=(f"a{i}", f"b{i}"))
        image = mj.ScalarImage(np.full((1, 3, 3, 3), i, np.float32), i=i)
        return mj.Subject(t1=image, ac=points, y=i)

    subjects = [made(i) for i in range(4)]
    batch = mj.stack(subjects)
    for other in (
        stacked_by_numpy(subjects),
        jax.tree.map(lambda x: x[1], batch),
        jax.tree.map(lambda x: x[:2], batch),
        jax.tree.map(lambda x: x[None], subjects[3]),
        jax.tree.map(lambda *x: np.concatenate(x), batch, batch),
    ):
        assert other.metadata == {} and other.t1.metadata == {} and other.ac.labels is None
    for other in (jax.device_put(batch), jax.tree.map(lambda x: x * 2, batch), batch):
        assert other.y == (0, 1, 2, 3) and other.t1.metadata[2] == {"i": 2} and other.ac.labels[3] == ("a3", "b3")
    kept = jax.tree.map(lambda x: x * 2, subjects[2])
    assert kept.y == 2 and kept.t1.metadata == {"i": 2} and kept.ac.labels == ("a2", "b2")


def test_images_in_files_are_told_from_batches_before_they_are_read(path):
    subjects = [mj.Subject(t1=mj.ScalarImage(path, note=i), y=i) for i in range(2)]
    for subject in (subjects[0], subjects[0].load()):
        assert jax.tree.map(lambda x: x * 1, subject).y == 0
        batch = stacked_by_numpy([subject, subjects[1]])
        assert batch.metadata == {} and batch.t1.metadata == {} and batch.t1.shape == (2, 1, *SHAPE)


def test_metadata_that_is_not_there_says_why(reads, path):
    subject = small_subject(np.eye(4), (3, 3, 3), y=3)
    for inside in (jax.jit, jax.vmap, jax.grad):
        x = mj.stack([subject, subject]) if inside is jax.vmap else subject.replace(label=None)
        with pytest.raises(AttributeError, match=r"no 'y'; it has t1, label. Metadata does not enter.*y=np.int32\(3\)"):
            inside(lambda x: x.y * 1.0)(x)
    with pytest.raises(AttributeError, match=r"no 'y'.*Only medjax.stack makes batches that keep metadata.*y=np.int32"):
        stacked_by_numpy([subject, subject]).y  # noqa: B018
    with pytest.raises(KeyError, match="no 'z'; it has t1, y.$"):
        mj.Subject(t1=mj.ScalarImage(path), y=3)["z"]
    assert reads == []


def test_what_is_an_array_of_numbers_and_what_is_metadata():
    arrays = {
        "a": np.float64(1),
        "b": np.bool_(True),
        "c": np.zeros((2, 0)),
        "d": jnp.arange(3),
        "e": jax.random.key(0),
    }
    other = {"f": 1, "g": 2.0, "h": "x", "i": np.array(["x"]), "j": np.array([{}], object), "k": [np.zeros(2)], "l": np.str_("x")}  # fmt: skip
    subject = mj.Subject(t1=mj.ScalarImage(volume()), **arrays, **other)
    assert subject.metadata == other and len(jax.tree.leaves(subject)) == 2 + len(arrays)
    batch = mj.stack([subject, subject])
    assert all(batch[name].shape == (2, *np.shape(item)) for name, item in arrays.items())
    assert all(isinstance(batch[name], np.ndarray) for name in "abc") and batch.metadata["h"] == ("x", "x")
    back = mj.unstack(batch)[1]
    assert back.metadata == other and all(np.shape(back[name]) == np.shape(item) for name, item in arrays.items())


def test_a_leaf_stays_one_whatever_stands_in_its_place():
    """JAX puts shapes, axes and shardings in place of arrays, and asks for the same tree again."""
    subject = labelled(1)
    for put in (
        lambda x: 0,
        lambda x: "axis",
        lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.float32),
        lambda x: None,
    ):
        other = jax.tree.map(put, subject)
        assert list(other) == list(subject)
        if put(0) is not None:
            assert jax.tree.structure(other) == jax.tree.structure(subject)
            assert jax.tree.leaves(other) == [put(leaf) for leaf in jax.tree.leaves(subject)]
    axes = jax.tree.map(lambda x: 0, mj.stack([subject, subject]))
    assert jax.vmap(lambda s: s.y, in_axes=(axes,))(mj.stack([subject, subject])).tolist() == [1, 1]


@pytest.mark.parametrize("one, other, message", [
    (np.int32(1), np.zeros(2, np.int32), r"y is int32 \(\) in one and int32 \(2,\) in the other"),
    (np.int32(1), np.float32(1), r"y is int32 \(\) in one and float32 \(\) in the other"),
    (np.int32(1), 1, r"y is int32 \(\) in one and 1 in the other"),
])  # fmt: skip
def test_arrays_that_do_not_stack_are_named(one, other, message):
    made = [small_subject(np.eye(4), (3, 3, 3), y=y) for y in (one, other)]
    with pytest.raises(ValueError, match=f"subjects 0 and 2 do not stack: {message}; .* metadata in a list"):
        mj.stack([made[0], made[0], made[1]])
    with pytest.raises(ValueError, match="subjects 0 and 1 do not stack: y is .* in one and int32"):
        mj.stack(made[::-1])
    for pair in ([made[0], made[0].replace(t1=None)], [made[0], small_subject(np.eye(4), (3, 3, 3))]):
        with pytest.raises(ValueError, match="subjects 0 and 1 .*do not stack"):
            mj.stack(pair)
    assert mj.stack([s.replace(y=[s.y]) for s in made]).y == ([one], [other])


def test_metadata_that_is_given_to_a_batch_as_one_is_that_of_every_subject():
    batch = mj.stack([small_subject(np.eye(4), (3, 3, 3), age=i) for i in range(2)]).replace(site="ab", scale=0.5)
    for i, subject in enumerate(mj.unstack(batch)):
        assert subject.metadata == {"age": i, "site": "ab", "scale": 0.5}


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda s: pickle.loads(pickle.dumps(s))])
def test_subjects_copy_and_pickle(again):
    subject = mj.Subject(small_subject(age=45), seg=None)
    twin = again(subject)
    assert list(twin) == list(subject) and twin.age == 45 and twin.seg is None
    assert isinstance(twin.label, mj.LabelMap)
    np.testing.assert_array_equal(twin.t1.numpy(), subject.t1.numpy())
    np.testing.assert_array_equal(twin.t1.affine, OBLIQUE)


# -- batches


def test_a_batch_is_a_subject_with_a_leading_axis_and_comes_apart_again():
    subjects = [small_subject(np.diag([s, 1.0, 1, 1]), seed=i, name=f"s{i}") for i, s in enumerate((1, 2, 3))]
    batch = mj.stack(subjects)
    assert batch.t1.data.shape == (3, 1, 23, 31, 18) and batch.t1.affine.shape == (3, 4, 4)
    assert batch.name == ("s0", "s1", "s2") and batch.t1.extent is None
    np.testing.assert_array_equal(batch.t1.spacing[:, 0], [1, 2, 3])
    for got, want in zip(mj.unstack(batch), subjects, strict=True):
        assert got.name == want.name
        for name in ("t1", "label"):
            np.testing.assert_array_equal(got[name].numpy(), want[name].numpy())
            np.testing.assert_array_equal(got[name].affine, want[name].affine)


def test_padded_batches_carry_their_extent_and_come_apart_without_padding():
    subjects = [small_subject(np.eye(4), shape, i) for i, shape in enumerate(((9, 12, 7), (11, 8, 10)))]
    batch = mj.stack(subjects, shape=(12, 12, 12))
    assert batch.label.data.shape == (2, 1, 12, 12, 12) and batch.label.dtype == np.uint8
    np.testing.assert_array_equal(batch.t1.extent, [(9, 12, 7), (11, 8, 10)])
    np.testing.assert_array_equal(batch.t1.data[0, :, 9:], 0)
    for got, want in zip(mj.unstack(batch), subjects, strict=True):
        np.testing.assert_array_equal(got.t1.numpy(), want.t1.numpy())
        np.testing.assert_array_equal(got.label.numpy(), want.label.numpy())


def test_one_image_alone_may_be_padded():
    t1, t2 = mj.ScalarImage(volume()), mj.ScalarImage(volume(seed=1))
    other = mj.ScalarImage(np.zeros((1, 3, 3, 3), np.float32))
    batch = mj.stack([mj.Subject(t1=t1, t2=t2), mj.Subject(t1=other, t2=t2)], shape={"t1": (8, 8, 8)})
    assert batch.t1.data.shape == (2, 1, 8, 8, 8) and batch.t2.data.shape == (2, 1, *SHAPE)
    assert batch.t2.extent is None


def test_voxels_on_a_device_stay_there():
    subject = jax.tree.map(jnp.asarray, small_subject())
    assert isinstance(mj.stack([subject, subject]).t1.data, jax.Array)
    assert isinstance(mj.stack([small_subject()] * 2).t1.data, np.ndarray)


def differing():
    t1, label = mj.ScalarImage(volume()), mj.LabelMap(volume(dtype=np.uint8))
    return {
        "names": (mj.Subject(t1=t1), mj.Subject(t2=t1), r"t1 \(ScalarImage\) against t2 \(ScalarImage\)"),
        "missing": (
            mj.Subject(t1=t1, t2=None),
            mj.Subject(t1=t1, t2=t1),
            r"t2 \(missing\) against .*t2 \(ScalarImage\)",
        ),
        "kinds": (mj.Subject(t1=t1), mj.Subject(t1=label), r"ScalarImage.* against .*LabelMap"),
        "channels": (mj.Subject(t1=t1), mj.Subject(t1=mj.ScalarImage(volume(2))), r"t1 is float32 .*2, 5, 6, 7"),
        "dtypes": (mj.Subject(t1=t1), mj.Subject(t1=mj.ScalarImage(volume(dtype=np.int16))), "float32 .* int16"),
        "shapes": (mj.Subject(t1=t1), mj.Subject(t1=mj.ScalarImage(volume()[:, 1:])), r"give stack\(..., shape=\)"),
    }


@pytest.mark.parametrize("what", differing())
def test_subjects_that_differ_do_not_stack_and_both_are_named(what):
    one, other, message = differing()[what]
    with pytest.raises(ValueError, match=f"subjects 0 and 2 .*{message}"):
        mj.stack([one, one, other])


def test_what_does_not_fit_or_is_no_batch():
    with pytest.raises(ValueError, match="smaller than t1"):
        mj.stack([small_subject()], shape=(9, 40, 40))
    with pytest.raises(ValueError, match="at least one"):
        mj.stack([])
    with pytest.raises(ValueError, match="not a batch"):
        mj.unstack(small_subject())


def test_a_missing_image_goes_through_transforms_and_batches():
    subject = small_subject().replace(t2=None)
    assert mj.Compose([mj.Flip(0), mj.Gamma(2.0)])(subject).t2 is None
    batch = mj.Flip(0).batch(mj.stack([subject, subject]))
    assert batch.t2 is None and mj.unstack(batch)[1].t2 is None
    assert jax.jit(mj.Flip(0))(subject).t2 is None


# -- inside of compiled functions


X, MATRIX = volume(), OBLIQUE.astype(np.float32)


def seen(image):
    """All that is known of an image without its values."""
    known = image.data, image.affine, image.spacing, image.origin, image.direction, image.bounds, image.center
    return [jnp.asarray(value, jnp.float32) for value in known]


def scalar(x, a):
    return seen(mj.ScalarImage(x, a))


def label(x, a):
    return seen(mj.LabelMap(x, a))


def identity(x, a):
    return seen(mj.ScalarImage(x))


def nested(x, a):
    return seen(mj.ScalarImage(x, [[a[i, j] for j in range(4)] for i in range(4)]))


def host_voxels(x, a):
    return seen(mj.ScalarImage(X, a))


def points(x, a):
    return (
        mj.Points(x[0, 0, :, :3]).xyz,
        mj.Points([[a[0, 3], 1.0, 2.0]]).xyz,
        mj.Points.of_box(a[:3, 3], [1, 2, 3]).xyz,
    )


def directions(x, a):
    there = mj.Directions.from_fsl(x[0, 0, :, :3], a)
    return there.xyz, there.to_fsl(a)


def stacked_and_back(x, a):
    subjects = [mj.Subject(t1=mj.ScalarImage(x + i, a), ac=mj.Points(x[0, 0, :, :3]), y=x[0, 0, 0, 0]) for i in (0, 1)]
    batch = mj.stack(subjects)
    one = mj.unstack(batch)[1]
    return seen(batch.t1), batch.y, batch.ac.xyz, seen(one.t1), one.y, one.ac.xyz


def stacked_with_padding(x, a):
    image = mj.stack([mj.Subject(t1=mj.ScalarImage(x, a))] * 2, shape=(8, 8, 9)).t1
    return image.data, image.affine, image.extent


def channels(x, a):
    both = mj.Subject(a=mj.ScalarImage(x, a), b=mj.ScalarImage(x * 2, a))
    return mj.concat_channels(both, ["b", "a"], "c").c.data


def transformed(x, a):
    return seen(mj.ZNormalization()(mj.Subject(t1=mj.ScalarImage(x, a))).t1)


INSIDE = [scalar, label, identity, nested, host_voxels, points, directions, stacked_and_back, stacked_with_padding,
          channels, transformed]  # fmt: skip


@pytest.mark.parametrize("make", INSIDE, ids=lambda f: f.__name__)
def test_images_and_subjects_are_made_inside_of_jit_vmap_and_grad_as_outside(make):
    want = make(X, OBLIQUE)
    batched = jax.vmap(make)(np.stack([X] * 2), np.stack([MATRIX] * 2))
    for got in (jax.jit(make)(X, MATRIX), jax.tree.map(lambda leaf: leaf[1], batched)):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)

    def total(x, a):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(make(x, a)) if jnp.issubdtype(leaf.dtype, jnp.floating))

    assert all(np.isfinite(g).all() for g in jax.grad(total, (0, 1))(X, MATRIX))


def test_what_cannot_be_known_while_tracing_is_refused_by_a_sentence():
    def orientation(x, a):
        return mj.ScalarImage(x, a).orientation

    def unpadded(x, a):
        return mj.unstack(jax.jit(lambda s: s)(mj.stack([mj.Subject(t1=mj.ScalarImage(x, a))] * 2, shape=(8, 8, 8))))

    with pytest.raises(TypeError, match="the orientation of an image depends on values that are not known.*jit"):
        jax.jit(orientation)(X, MATRIX)
    with pytest.raises(TypeError, match="the shape of t1, which is padded, depends on values that are not known"):
        jax.jit(unpadded)(X, MATRIX)
    for affine, message in ((MATRIX[:3], r"affine must have shape \(4, 4\)"), (np.stack([MATRIX] * 2), "affine must")):
        with pytest.raises(ValueError, match=message):
            jax.jit(lambda a: mj.ScalarImage(X, a).data)(affine)
    for wrong in (X[0], X[None]):
        with pytest.raises(ValueError, match=r"source must be an array \(C, I, J, K\), got shape"):
            jax.jit(lambda x: mj.ScalarImage(x).data)(wrong)


def test_the_geometry_of_a_batch_is_that_of_its_subjects():
    affines = [OBLIQUE, oriented("PIR", (1, 2, 3), (10, -500, 90))]
    subjects = [mj.Subject(t1=mj.ScalarImage(volume(seed=i), a)) for i, a in enumerate(affines)]
    batch = mj.stack(subjects).t1
    for name in ("spacing", "origin", "direction", "bounds", "center"):
        want = [np.asarray(getattr(s.t1, name)) for s in subjects]
        np.testing.assert_allclose(np.asarray(getattr(batch, name)), want, atol=1e-9)
    with pytest.raises(ValueError, match="medjax.unstack gives the subjects of a batch"):
        batch.orientation  # noqa: B018


# -- channels


def test_several_images_of_one_grid_become_channels():
    t1, t2, seg = (
        mj.ScalarImage(volume(), OBLIQUE),
        mj.ScalarImage(volume(2, 1), OBLIQUE),
        mj.LabelMap(volume(), OBLIQUE),
    )
    got = mj.concat_channels(mj.Subject(t1=t1, seg=seg, t2=t2, age=3), ["t2", "t1"], "mri")
    assert list(got) == ["mri", "seg", "age"] and got.mri.shape == (3, *SHAPE)
    np.testing.assert_array_equal(got.mri.numpy(), np.concatenate([t2.numpy(), t1.numpy()]))
    np.testing.assert_array_equal(got.mri.affine, OBLIQUE)
    moved = t2.replace(affine=OBLIQUE + 0.1 * np.eye(4, k=3))
    cut = mj.ScalarImage(volume()[:, 1:], OBLIQUE)
    for other, message in ((moved, "one grid.*voxels apart"), (seg, "one kind.*LabelMap"), (cut, "one grid")):
        with pytest.raises(ValueError, match=f"concat_channels.*{message}"):
            mj.concat_channels(mj.Subject(t1=t1, t2=other), ["t1", "t2"], "mri")


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_channels_lie_on_one_grid_in_voxels_whatever_their_size(scale):
    """A header rounded to float32 is the same grid; a turn that is small in each number moves the corner by voxels."""
    affine = np.diag([scale] * 3 + [1.0]) @ OBLIQUE
    t1 = mj.ScalarImage(volume(), affine)
    rounded = mj.ScalarImage(volume(), affine.astype(np.float32))
    assert mj.concat_channels(mj.Subject(t1=t1, t2=rounded), ["t1", "t2"], "mri").mri.shape[0] == 2
    long, stretched = np.zeros((1, 400, 2, 2), np.uint8), affine.copy()
    stretched[:3, :3] *= 1.0009
    with pytest.raises(ValueError, match="0.359 voxels apart"):
        images = {"t1": mj.ScalarImage(long, affine), "t2": mj.ScalarImage(long, stretched)}
        mj.concat_channels(mj.Subject(images), ["t1", "t2"], "mri")


@pytest.mark.parametrize("xp", [np, jnp])
def test_channels_last_is_numpys_moveaxis(xp):
    for shape in ((2, 3, 4, 5), (6, 2, 3, 4, 5)):
        data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        got = mj.channels_last(xp.asarray(data))
        assert isinstance(got, jax.Array if xp is jnp else np.ndarray)
        np.testing.assert_array_equal(got, np.moveaxis(data, -4, -1))
        image = mj.ScalarImage.of(xp.asarray(data), np.eye(4))
        np.testing.assert_array_equal(mj.channels_last(image), got)


def test_a_real_file():
    image, peer = mj.ScalarImage(T1), nibabel.load(T1)
    assert image.shape == (1, *peer.shape) == (1, 197, 233, 189)
    np.testing.assert_allclose(image.spacing, (1, 1, 1), atol=1e-6)
    np.testing.assert_array_equal(image.numpy()[0, ::9], np.asarray(peer.dataobj[::9]))


# -- an affine that nobody gave


def beside(label, affine=OBLIQUE):
    """A T1 on some grid, and something of its shape beside it."""
    return mj.Subject(t1=mj.ScalarImage(blobs(SHAPE)[None], affine), seg=label)


MASK = (blobs(SHAPE) > 0.5)[None].astype(np.uint8)
SPACE = mj.Affine((1, 1, 1), (0, 0, 0), (2, 0, 0))


def warned(call):
    """The warnings of a call."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return caught


@pytest.mark.parametrize("codes, origin", [("RAS", (3, 0, 0)), ("LPS", (4, 5, 0))])
def test_an_array_without_an_affine_beside_an_image_with_one_is_warned_of(codes, origin):
    subject = beside(mj.LabelMap(MASK), oriented(codes, origin=origin))
    batch = mj.stack([subject, subject])
    for call in (
        lambda: SPACE(subject),
        lambda: SPACE.batch(batch),
        lambda: mj.Compose([mj.Gamma(1.0), SPACE])(subject),
    ):
        (one,) = warned(call)
        for part in ("seg was given without an affine", "t1", "affine=subject['t1'].affine", "CopyAffine('t1')"):
            assert part in str(one.message)
        assert one.filename == __file__
    twin = pickle.loads(pickle.dumps(subject))
    assert len(warned(lambda: SPACE(twin))) == 1
    assert len(warned(lambda: SPACE(mj.Gamma(2.0)(subject)))) == 1  # what is not moved is still where it was
    assert len(warned(lambda: SPACE(mj.unstack(batch)[0]))) == 1
    assert not warned(lambda: mj.Gamma(2.0)(subject))


def test_an_image_that_was_read_without_an_affine_is_warned_of(tmp_path):
    np.save(tmp_path / "seg.npy", MASK)
    subject = beside(mj.LabelMap(tmp_path / "seg.npy", reader=np.load), oriented("RAS", origin=(3, 0, 0)))
    assert len(warned(lambda: SPACE(subject))) == 1
    nobody = nibabel.Nifti1Image(MASK[0], None)
    assert len(warned(lambda: SPACE(beside(mj.LabelMap(nobody), oriented("RAS", origin=(3, 0, 0)))))) == 1


def test_no_other_subject_is_warned_of(path):
    near = oriented("RAS", origin=(3, 0, 0))
    label = mj.LabelMap(MASK)
    for subject in (
        beside(mj.LabelMap(MASK, np.eye(4)), near),  # the identity is what was meant
        beside(label, np.eye(4)),
        beside(label.replace(affine=near), near),
        beside(mj.LabelMap(MASK[:, 1:]), near),
        mj.Subject(t1=mj.ScalarImage(volume()), seg=label),
        beside(mj.LabelMap(volume(), near), near),
        mj.Subject(t1=mj.ScalarImage(path)),
    ):
        assert not warned(lambda subject=subject: SPACE(subject))
    subject = beside(label, near)
    assert not warned(lambda: mj.Compose([mj.CopyAffine("t1"), SPACE])(subject))
    assert not warned(lambda: SPACE(mj.CopyAffine("t1")(subject)))
    assert not warned(lambda: mj.Affine((1, 1, 1), (0, 0, 0), (2, 0, 0), include=["t1"])(subject))
    assert not warned(lambda: SPACE({"t1": volume(), "seg": MASK}, labels=["seg"]))


def test_replacing_voxels_keeps_that_an_affine_was_assumed():
    image = mj.LabelMap(MASK)
    assert image.assumed and image.replace(data=1 - MASK).assumed and not image.replace(affine=np.eye(4)).assumed
    assert jax.tree.map(lambda leaf: leaf, image).assumed and not jax.jit(lambda x: x)(image).assumed
    assert not mj.LabelMap(MASK, OBLIQUE).assumed
