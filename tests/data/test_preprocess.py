"""Preprocessing to files: what is done once, done again and recorded, and what stays out of it."""

import gzip
import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import warnings
import zlib
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import jax
import nibabel
import numpy as np
import pytest

import medjax as mj
from medjax.data import job, sidecars
from medjax.data.manifest import Manifest, Record

NAMES = "sub-{id}_{modality}.nii.gz"
LAS = np.array([[-2.0, 0, 0, 10], [0, 1, 0, -3], [0, 0, 1.5, 4], [0, 0, 0, 1]])


@pytest.fixture
def folder(tmp_path):
    """Three subjects, each an image and labels."""
    (tmp_path / "in").mkdir()
    for n in range(3):
        data = np.random.default_rng(n).normal(size=(1, 6, 7, 8)).astype(np.float32)
        mj.ScalarImage(data, LAS).save(tmp_path / f"in/sub-{n}_T1w.nii.gz")
        mj.LabelMap((data > 0).astype(np.uint8), LAS).save(tmp_path / f"in/sub-{n}_dseg.nii.gz")
    return tmp_path


CROP = mj.Compose([mj.ToCanonical(), mj.CropOrPad(6)])


def dataset_in(folder):
    return mj.SubjectsDataset.from_folder(folder / "in" / NAMES)


def run(folder, pipeline=CROP, out="out", **options):
    return mj.preprocess(dataset_in(folder), pipeline, folder / out, **{"names": NAMES, **options})


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".gz"}


def test_every_subject_is_what_the_pipeline_makes_of_it(folder):
    report = run(folder)
    assert report.done == tuple(f"sub-{n}_*.nii.gz" for n in range(3)) and not report.failed and not report.kept
    for subject in dataset_in(folder).subjects:
        made = CROP(subject)
        for name, image in made.images.items():
            found = nibabel.load(folder / "out" / f"sub-{subject.id}_{name}.nii.gz")
            np.testing.assert_array_equal(found.get_fdata(), image.numpy()[0])
            np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
            assert found.get_data_dtype() == image.dtype
    again = mj.SubjectsDataset.from_folder(folder / "out" / NAMES)
    assert [s.id for s in again.subjects] == ["0", "1", "2"]
    assert report.bytes == sum(map(len, files(folder / "out").values()))
    (config,) = (folder / "out").glob("pipeline-*.json")
    assert mj.to_config(mj.from_config(json.loads(config.read_text()))) == mj.to_config(CROP)


def test_a_line_says_what_was_done(folder):
    run(folder)
    records = [json.loads(line) for line in (folder / "out/manifest.jsonl").read_text().splitlines()]
    assert len(records) == 3
    one = next(record for record in records if record["subject"] == "sub-1_*.nii.gz")
    assert one["inputs"] == ["sub-1_T1w.nii.gz", "sub-1_dseg.nii.gz"] and one["error"] is None and one["key"] is None
    assert one["version"] == mj.__version__ and one["seconds"] > 0
    for name, (size, crc) in one["outputs"].items():
        data = (folder / "out" / name).read_bytes()
        assert (len(data), zlib.crc32(data)) == (size, crc)


def touched(folder):
    path = folder / "in/sub-1_T1w.nii.gz"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def with_sidecar(folder):
    (folder / "in/sub-1_dseg.json").write_text('{"Manual": true}')


CHANGES = {
    "nothing": (lambda folder: None, CROP, 0),
    "a file of one": (touched, CROP, 1),
    "a sidecar of one": (with_sidecar, CROP, 1),
    "an output is gone": (lambda folder: (folder / "out/sub-2_dseg.nii.gz").unlink(), CROP, 1),
    "an output is cut off": (lambda folder: os.truncate(folder / "out/sub-2_dseg.nii.gz", 20), CROP, 1),
    "the pipeline": (lambda folder: None, mj.Compose([mj.ToCanonical(), mj.CropOrPad(6, padding_mode=1.0)]), 3),
    "the manifest is gone": (lambda folder: (folder / "out/manifest.jsonl").unlink(), CROP, 3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_second_run_does_what_is_missing_or_changed(folder, change):
    run(folder)
    act, pipeline, count = CHANGES[change]
    act(folder)
    report = run(folder, pipeline)
    assert (len(report.done), len(report.kept)) == (count, 3 - count)
    assert len(run(folder, pipeline).kept) == 3


def test_a_failure_is_recorded_and_the_others_are_done(folder):
    os.truncate(folder / "in/sub-0_T1w.nii.gz", 60)
    (folder / "in/sub-1_dseg.nii.gz").unlink()
    subjects = [mj.Subject(T1w=mj.ScalarImage(folder / "in" / f"sub-{n}_T1w.nii.gz"),
                           dseg=mj.LabelMap(folder / "in" / f"sub-{n}_dseg.nii.gz"), id=n) for n in range(3)]  # fmt: skip
    with pytest.warns(UserWarning, match="2 of 3 subjects failed"):
        report = mj.preprocess(subjects, CROP, folder / "out")
    assert report.done == ("2/*.nii.gz",) and sorted(report.failed) == ["0/*.nii.gz", "1/*.nii.gz"]
    assert "sub-0_T1w.nii.gz" in report.failed["0/*.nii.gz"] and str(folder) not in str(report.failed)
    assert Manifest(folder / "out").latest()["1/*.nii.gz"].error == report.failed["1/*.nii.gz"]
    assert not list((folder / "out").rglob(".medjax-*"))
    mj.LabelMap(np.ones((1, 6, 7, 8), np.uint8), LAS).save(folder / "in/sub-1_dseg.nii.gz")
    with pytest.warns(UserWarning, match="1 of 2 subjects failed"):
        assert mj.preprocess(subjects, CROP, folder / "out").done == ("1/*.nii.gz",)


def test_a_full_disk_is_a_failure_that_is_recorded(folder):
    """No file may be larger than 3000 bytes for a while, as it is where the last of a disk is used up."""
    noise = np.random.default_rng(0).normal(size=(1, 20, 20, 20)).astype(np.float32)
    mj.ScalarImage(noise, LAS).save(folder / "in/sub-1_T1w.nii.gz")
    pipeline = mj.ToCanonical()
    run(folder, pipeline, out="warm")  # compiles, which may write files
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="1 of 3 subjects failed"):
            report = run(folder, pipeline)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(report.failed) == ["sub-1_*.nii.gz"] and "OSError" in report.failed["sub-1_*.nii.gz"]
    assert not (folder / "out/sub-1_T1w.nii.gz").exists()
    assert run(folder, pipeline).done == ("sub-1_*.nii.gz",)


def test_what_the_manifest_cannot_take_waits_and_is_told(folder):
    (folder / "out/manifest.jsonl").mkdir(parents=True)
    manifest = Manifest(folder / "out")
    manifest.append(record("a"))
    manifest.path.rmdir()
    manifest.append(record("b"))
    assert set(Manifest(folder / "out").latest()) == {"a", "b"}


def record(name, error=None):
    return Record(name, ["x"], "s", "c", "v", None, 1.0, {"a.nii": [1, 2]}, error)


def test_a_manifest_survives_being_cut_off_at_any_byte(tmp_path):
    manifest = Manifest(tmp_path)
    manifest.append(record("a"))
    first = manifest.path.stat().st_size
    manifest.append(record("ü\n", "failed"))
    whole = manifest.path.read_bytes()
    for size in range(first, len(whole)):
        manifest.path.write_bytes(whole[:size])
        again = Manifest(tmp_path)
        assert list(again.latest()) == (["a", "ü\n"] if size == len(whole) - 1 else ["a"])
        again.append(record("c"))
        assert set(again.latest()) >= {"a", "c"} and again.latest()["c"] == record("c")


def test_the_same_input_gives_the_same_bytes_in_any_order_and_executor(folder):
    pipeline = mj.Compose([CROP, mj.RandomNoise(std=(0.5, 1))])
    run(folder, pipeline, key=jax.random.key(3))
    with ThreadPoolExecutor(1) as pool:
        subjects = dataset_in(folder).subjects[::-1]
        mj.preprocess(subjects, pipeline, folder / "b", names=NAMES, key=jax.random.key(3), executor=pool)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        mj.preprocess(subjects[:2], pipeline, folder / "c", names=NAMES, key=jax.random.key(3), executor=pool)
    one, other, spawned = (files(folder / out) for out in ("out", "b", "c"))
    assert one == other and len(spawned) == 4 and spawned.items() <= one.items()
    assert all(data[4:8] == bytes(4) for data in one.values())  # no time in gzip's header
    run(folder, pipeline, key=jax.random.key(4), out="d")
    assert not set(files(folder / "d").values()) & {data for name, data in one.items() if "T1w" in name}
    noise = [mj.ScalarImage(folder / "out" / f"sub-{n}_T1w.nii.gz").numpy() - CROP(s).T1w.numpy()
             for n, s in enumerate(dataset_in(folder).subjects)]  # fmt: skip
    assert abs(np.corrcoef(np.ravel(noise[0]), np.ravel(noise[1]))[0, 1]) < 0.3


def test_an_executor_that_forks_is_refused(folder):
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    with pool, pytest.raises(job.Forked, match="spawn"):
        run(folder, executor=pool)


class Doubtful(Executor):
    """Does one job, and fails then as it is told."""

    def __init__(self, problem):
        self.problem, self.count = problem, 0

    def submit(self, function, /, *arguments):
        future, self.count = Future(), self.count + 1
        if self.count == 1:
            future.set_result(function(*arguments))
        elif isinstance(self.problem, Exception):
            future.set_exception(self.problem)
        elif self.count == 3:
            main = threading.main_thread().ident
            threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT]).start()
        return future


def test_ctrl_c_leaves_what_a_next_run_goes_on_from(folder):
    with pytest.raises(KeyboardInterrupt):
        run(folder, executor=Doubtful(None))
    report = run(folder)
    assert len(report.kept) == 1 and len(report.done) == 2


def test_what_an_executor_says(folder):
    with pytest.raises(RuntimeError, match="1 of 3 subjects are done"):
        run(folder, executor=Doubtful(BrokenProcessPool()))
    with pytest.warns(UserWarning, match="2 of 2 subjects failed"):
        report = run(folder, executor=Doubtful2(ArithmeticError(f"lost {folder}/in/sub-1_T1w.nii.gz")))
    assert len(report.kept) == 1 and set(report.failed.values()) == {"ArithmeticError: lost sub-1_T1w.nii.gz"}


class Doubtful2(Doubtful):
    def __init__(self, problem):
        super().__init__(problem)
        self.count = 1


@pytest.mark.parametrize("moments", [4, pytest.param(50, marks=pytest.mark.long)])
def test_kill_9_at_any_moment_breaks_no_file(tmp_path, moments):
    script = Path(__file__).with_name("killed.py")
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(moments)], capture_output=True, text=True, timeout=900,
        env={**os.environ, "PYTHONPATH": str(Path(mj.__file__).parents[1]), "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert re.search(r"[1-9]\d* killed, 0 broken, 12 of 12 equal, 0 drafts left", result.stdout), result.stdout


def test_workers_of_dask_do_it_and_one_may_be_killed(folder):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is an extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
            victim = next(iter(client.run(os.getpid).values()))
            client.run(__import__, "medjax")
            killer = threading.Timer(0.2, os.kill, [victim, signal.SIGKILL])
            killer.start()
            report = run(folder, executor=client.get_executor(), out="dask")
            killer.join()
    run(folder)
    assert len(report.done) == 3 and files(folder / "dask") == files(folder / "out")


def test_a_dry_run_writes_nothing_and_says_what_is_due(folder):
    report = run(folder, dry_run=True)
    assert len(report.due) == 3 and report.seconds > 0 and not report.done and not (folder / "out").exists()
    done = run(folder)
    assert report.bytes == pytest.approx(done.bytes, rel=0.1)
    touched(folder)
    again = run(folder, dry_run=True)
    assert again.due == ("sub-1_*.nii.gz",) and len(again.kept) == 2
    assert again.bytes == pytest.approx(done.bytes / 3, rel=0.1) and 0 < again.seconds < done.seconds


# -- who is in the picture stays out

MARKER = "Doe^Jane 19700101"


def test_nothing_that_names_a_person_is_written_or_said(folder, caplog, capfd):
    home = folder / MARKER / "scans"
    home.mkdir(parents=True)
    for n in range(3):
        data = np.random.default_rng(n).normal(size=(6, 7, 8)).astype(np.float32)
        image = nibabel.Nifti1Image(data, LAS)
        for field in ("descrip", "aux_file", "intent_name", "db_name"):
            image.header[field] = MARKER[: 10 if field == "db_name" else 16]
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", MARKER.encode()))
        nibabel.save(image, home / f"sub-{n}_T1w.nii.gz")
        said = {"PatientName": MARKER, "EchoTime": 0.03, "ImageType": ["ORIGINAL", MARKER * 9], "AcquisitionTime": "1",
                "SliceTiming": [0, 1], "FlipAngle": 9, "InstitutionAddress": MARKER, "SeriesDescription": MARKER}  # fmt: skip
        (home / f"sub-{n}_T1w.json").write_text(json.dumps(said))
    os.truncate(home / "sub-1_T1w.nii.gz", 90)
    subjects = [mj.Subject(T1w=mj.ScalarImage(home / f"sub-{n}_T1w.nii.gz"), id=n, name=MARKER) for n in range(3)]
    bad = subjects[2].replace(T1w=mj.ScalarImage(home / "sub-2_T1w.nii.gz", reader=read_badly))
    with pytest.warns(UserWarning, match="2 of 3"):
        report = mj.preprocess([*subjects[:2], bad], mj.ToCanonical(), folder / "out", names="{id}/{modality}.nii.gz")
    written = b""
    for path in (folder / "out").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        written += str(path.relative_to(folder)).encode() + (gzip.decompress(data) if path.suffix == ".gz" else data)
    said = repr(report).replace(str(folder), "") + caplog.text + "".join(capfd.readouterr())
    for part in ("Doe", "Jane", "1970"):
        assert part not in said and part.encode() not in written
    assert json.loads((folder / "out/0/T1w.json").read_text()) == {"EchoTime": 0.03, "FlipAngle": 9}
    assert len(report.done) == 1 and "..." in report.failed["2/*.nii.gz"]


def read_badly(path):
    raise ValueError(f"cannot read the scan of {MARKER} in {path}")


def test_fields_that_hang_on_the_grid_follow_where_it_stays(folder):
    (folder / "in/sub-0_T1w.json").write_text('{"SliceTiming": [0, 0.5], "EchoTime": 0.03}')
    run(folder, mj.ZNormalization(), out="same")
    run(folder, mj.ToCanonical(), out="turned")
    assert json.loads((folder / "same/sub-0_T1w.json").read_text()) == {"SliceTiming": [0, 0.5], "EchoTime": 0.03}
    assert json.loads((folder / "turned/sub-0_T1w.json").read_text()) == {"EchoTime": 0.03}


def in_world(bvecs, affine):
    """FSL's b-vectors (3, N) in the world, by its definition: https://fsl.fmrib.ox.ac.uk/fsl/docs/#/diffusion/eddy."""
    linear = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return linear @ (bvecs * np.array([[-1 if np.linalg.det(linear) > 0 else 1], [1], [1]]))


def test_gradients_turn_with_their_series(folder):
    rng = np.random.default_rng(0)
    mj.ScalarImage(rng.normal(size=(4, 6, 7, 8)).astype(np.float32), LAS).save(folder / "in/sub-9_dwi.nii.gz")
    bvecs = rng.normal(size=(3, 4))
    bvecs[:, 0] = 0
    bvecs[:, 1:] /= np.linalg.norm(bvecs[:, 1:], axis=0)
    np.savetxt(folder / "in/sub-9_dwi.bvec", bvecs)
    np.savetxt(folder / "in/sub-9_dwi.bval", [[0, 1000, 1000, 2000]])
    subject = dataset_in(folder).subjects[3]
    steps = [mj.ToOrientation("PIR"), mj.Affine(degrees=(0, 0, 90)), mj.TemporalCrop(start=1, length=3)]
    mj.preprocess([subject], mj.Compose(steps), folder / "out", names=NAMES)
    made = nibabel.load(folder / "out/sub-9_dwi.nii.gz")
    assert made.shape[3] == 3
    found = in_world(np.loadtxt(folder / "out/sub-9_dwi.bvec"), made.affine)
    quarter = mj.Affine(degrees=(0, 0, 90))(mj.Subject(a=subject.dwi, p=mj.Points([[1.0, 0, 0], [0, 0, 0]]))).p.xyz
    x = np.asarray(quarter)[0] - np.asarray(quarter)[1]  # where the first axis of the world goes
    turn = np.array([[x[0], -x[1], 0], [x[1], x[0], 0], [0, 0, 1]])
    np.testing.assert_allclose(found, turn @ in_world(bvecs, LAS)[:, 1:], atol=1e-5)
    assert np.loadtxt(folder / "out/sub-9_dwi.bval").tolist() == [1000, 1000, 2000]


def test_every_technical_field_is_named_once_and_those_of_the_grid_are_among_them():
    assert len(sidecars.TECHNICAL) == len(sidecars.WORDS.split())
    assert sidecars.OF_THE_GRID | sidecars.OF_THE_VOLUMES <= sidecars.TECHNICAL


# -- what is refused before anything is begun


def test_what_makes_no_sense_is_refused(folder):
    array = mj.Subject(t1=mj.ScalarImage(np.zeros((1, 2, 2, 2), np.float32)))
    cases = [
        (ValueError, "t1 of subject 0 is an array", lambda: mj.preprocess([array], CROP, folder / "out")),
        (ValueError, "several images", lambda: run(folder, names="{id}.nii.gz")),
        (ValueError, "subjects 0 and 1 are both", lambda: run(folder, names="{modality}.nii.gz")),
        (ValueError, "no 'idd'.*Did you mean 'id'", lambda: run(folder, names="{idd}/{modality}.nii.gz")),
        (ValueError, "replace an input, sub-0_T1w.nii.gz", lambda: run(folder, out="in")),
        (ValueError, "found again", lambda: run(folder, lambda subject: subject)),
        (TypeError, "needs a key", lambda: run(folder, mj.RandomNoise())),
        (TypeError, "pipeline", lambda: run(folder, "CropOrPad")),
        (TypeError, "executor", lambda: run(folder, executor=4)),
        (TypeError, "dry_run", lambda: run(folder, dry_run="yes")),
        (ValueError, "with a transform", lambda: mj.preprocess(mj.SubjectsDataset([], CROP), CROP, folder / "out")),
    ]
    for kind, problem, call in cases:
        with pytest.raises(kind, match=problem):
            call()
    assert not (folder / "out").exists()


def test_what_is_no_transform_but_a_function_of_a_module_is_a_pipeline_too(folder):
    pre = mj.nnunet_preprocess((2.0, 1.0, 1.5))
    report = run(folder, pre, names="{id}/{modality}.nii")
    assert len(report.done) == 3
    expected = pre(dataset_in(folder).subjects[1])
    np.testing.assert_array_equal(mj.ScalarImage(folder / "out/1/T1w.nii").numpy(), expected.T1w.numpy())
    assert len(run(folder, pre, names="{id}/{modality}.nii").kept) == 3
