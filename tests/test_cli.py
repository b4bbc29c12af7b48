"""The command line: what each command does, and that every error is one line and an exit status."""

import json

import nibabel
import numpy as np
import pytest
import yaml
from conftest import small_subject

import medjax as mj
from medjax import cli
from medjax.cli.pipelines import pipeline_of

LAS = np.diag([-1.0, 1, 2, 1])


@pytest.fixture
def folder(tmp_path):
    """Two subjects of an image and labels; the first has a voxel that is NaN and a label 7."""
    for n in range(2):
        subject = small_subject(LAS, (6, 7, 8), seed=n)
        data, label = subject.t1.numpy().copy(), subject.label.numpy().copy()
        if n == 0:
            data[0, 1, 1, 1], label[0, 2, 2, 2] = np.nan, 7
        mj.ScalarImage(data, LAS).save(tmp_path / f"sub-{n}_T1w.nii.gz")
        mj.LabelMap(label, LAS).save(tmp_path / f"sub-{n}_dseg.nii.gz")
    return tmp_path


EXPRESSIONS = {
    "RandomNoise()": mj.RandomNoise(),
    " mj.RandomNoise(std=(0, 0.5), p=0.5) ": mj.RandomNoise(std=(0, 0.5), p=0.5),
    "RandomBlur(Normal(1, 0.3, low=0))": mj.RandomBlur(mj.Normal(1, 0.3, low=0)),
    "ToCanonical(), Resample((1, 1, 2.5)), CropOrPad([6, 6, 6], padding_mode=-1)": mj.Compose(
        [mj.ToCanonical(), mj.Resample((1, 1, 2.5)), mj.CropOrPad((6, 6, 6), padding_mode=-1)]
    ),
    "OneOf([RandomNoise(), RandomGamma((-0.3, +0.3))], p=0.5)": mj.OneOf(
        [mj.RandomNoise(), mj.RandomGamma((-0.3, 0.3))], p=0.5
    ),
    "RemapLabels({1: 2, 3: 4})": mj.RemapLabels({1: 2, 3: 4}),
    "RandomFlip(axes='LR', include=['t1'])": mj.RandomFlip(axes="LR", include=["t1"]),
}


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_pipeline_is_an_expression_or_a_file(text, tmp_path):
    config = mj.to_config(EXPRESSIONS[text])
    assert mj.to_config(pipeline_of(text)) == config
    (tmp_path / "a.json").write_text(json.dumps(config))
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    for file in ("a.json", "a.yaml"):
        assert mj.to_config(pipeline_of(str(tmp_path / file))) == config


@pytest.mark.parametrize(
    "text, problem",
    [
        ("RandomNois()", "no transform 'RandomNois'.*Did you mean 'RandomNoise'"),
        ("__import__('os').system('touch pwned')", "no transform"),
        ("RandomNoise(std=__import__('os').getpid())", "no transform"),
        ("RandomNoise(std=(lambda: 1)())", "no transform"),
        ("RandomNoise(std=1 + 1)", "none of them"),
        ("RandomNoise(std=[x for x in (1, 2)])", "none of them"),
        ("RandomNoise(std=f'{1}')", "none of them"),
        ("RandomNoise", "none of them"),
        ("os.RandomNoise()", "no transform"),
        ("RandomNoise(*[1])", "none of them"),
        ("RandomNoise(**{'p': 1})", "each argument once"),
        ("RandomNoise(0, 1, 2, 3, 4, 5, 6, 7)", "in order"),
        ("RandomNoise(sdt=1)", "no argument 'sdt'"),
        ("RandomNoise(p=2)", "RandomNoise: p"),
        ("RandomNoise(", "nor an expression"),
        ("(" * 5000, "nor an expression"),
        ("", "nor an expression"),
        ("3", "configuration is a dictionary"),
    ],
)
def test_what_is_no_pipeline_is_refused_and_never_run(text, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=problem):
        pipeline_of(text)
    assert not list(tmp_path.iterdir())


def test_yaml_is_data_alone(tmp_path):
    (tmp_path / "a.yaml").write_text("!!python/object/apply:os.system ['touch pwned']")
    with pytest.raises(ValueError, match="could not determine a constructor"):
        pipeline_of(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("- name: ToCanonical\n- name: CropOrPad\n  target_shape: 6\n")
    assert [type(t).__name__ for t in pipeline_of(str(tmp_path / "b.yaml")).transforms] == ["ToCanonical", "CropOrPad"]


def call(capsys, *argv):
    status = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return status, out, err


def test_preprocess(folder, capsys):
    pattern, out = folder / "sub-{id}_{modality}.nii.gz", folder / "out"
    line = ("preprocess", pattern, "ToCanonical(), RandomNoise(std=1)", out, "--seed", 3)
    status, told, _ = call(capsys, *line, "--dry-run")
    assert status == 0 and told.startswith("2 due, 0 done before; about") and not out.exists()
    assert call(capsys, *line)[1].startswith("2 done, 0 done before, 0 failed")
    status, told, _ = call(capsys, *line, "--json")
    assert status == 0 and len(json.loads(told)["kept"]) == 2
    assert sorted(path.name for path in out.glob("sub*")) == sorted(path.name for path in folder.glob("sub*"))
    (folder / "sub-1_T1w.nii.gz").write_bytes(b"no image")
    status, told, said = call(capsys, *line)
    assert status == 1 and "1 failed" in told and "failed: sub-1_*.nii.gz: ValueError: sub-1_T1w.nii.gz" in said


def test_preprocess_of_a_table(folder, capsys):
    (folder / "t.csv").write_text("id,scan,seg\na,sub-0_T1w.nii.gz,sub-0_dseg.nii.gz\nb,sub-1_T1w.nii.gz,\n")
    options = ("--images", "scan", "--labels", "seg", "--names", "{id}_{modality}.nii")
    assert call(capsys, "preprocess", folder / "t.csv", "ToCanonical()", folder / "out", *options)[0] == 0
    assert sorted(path.name for path in (folder / "out").glob("*.nii")) == ["a_scan.nii", "a_seg.nii", "b_scan.nii"]


def test_apply(folder, capsys):
    image, label = folder / "sub-1_T1w.nii.gz", folder / "sub-1_dseg.nii.gz"
    line = ("apply", "RandomFlip(axes=(0, 1, 2), p=0.5), RandomNoise()", image)
    outputs = [folder / f"{name}.nii.gz" for name in "abc"]
    assert call(capsys, *line, outputs[0], "--label", label, folder / "l.nii.gz") == (0, "", "")
    call(capsys, *line, outputs[1], "--label", label, folder / "l.nii.gz", "--seed", 0)
    call(capsys, *line, outputs[2], "--label", label, folder / "m.nii.gz", "--seed", 1)
    a, b, c = (path.read_bytes() for path in outputs)
    assert a == b != c
    subject = mj.Subject(image=mj.ScalarImage(image), label=mj.LabelMap(label))
    made = pipeline_of(line[1])(subject, mj.keys.of_seed(0))
    np.testing.assert_array_equal(mj.ScalarImage(outputs[0]).numpy(), made.image.numpy())
    np.testing.assert_array_equal(mj.LabelMap(folder / "l.nii.gz").numpy(), made.label.numpy())


def test_info(folder, capsys):
    path = folder / "sub-0_T1w.nii.gz"
    status, told, _ = call(capsys, "info", path, "--json", "--statistics", "--header")
    (found,) = json.loads(told, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    voxels = nibabel.load(path).get_fdata()
    assert status == 0 and found["shape"] == [1, 6, 7, 8] and found["spacing"] == [1, 1, 2]
    assert found["orientation"] == "LAS" and found["format"] == "NIfTI" and found["header"]["pixdim"][3] == 2
    statistics = found["statistics"]
    assert statistics["nan"] == 1 and statistics["infinite"] == 0
    for name in ("min", "max", "mean", "std"):
        assert statistics[name] == pytest.approx(getattr(np, "nan" + name)(voxels))
    assert statistics["percentiles"]["50"] == pytest.approx(np.nanmedian(voxels))
    status, told, _ = call(capsys, "info", folder / "sub-0_dseg.nii.gz", "--statistics")
    label = nibabel.load(folder / "sub-0_dseg.nii.gz").get_fdata()
    assert '"7": 1' in told and f'"0": {int((label == 0).sum())}' in told


def test_validate(folder, capsys):
    pattern = folder / "sub-{id}_{modality}.nii.gz"
    status, told, _ = call(capsys, "validate", pattern, "--values", "0,1,3", "--json")
    found = json.loads(told)
    assert status == 1 and found["subjects"] == 2
    assert [(one["image"], one["what"]) for one in found["findings"]] == [
        ("T1w", "1 voxels are NaN"),
        ("dseg", "labels 7 should not be there"),
    ]
    (folder / "sub-0_T1w.nii.gz").unlink()
    assert call(capsys, "validate", pattern) == (0, "2 subjects, nothing found\n", "")
    mj.LabelMap(np.zeros((1, 6, 7, 8), np.int8) - 1, np.eye(4)).save(folder / "sub-1_dseg.nii.gz")
    mj.ScalarImage(np.ones((1, 6, 7, 8), np.float32), LAS).save(folder / "sub-1_T1w.nii.gz")
    status, told, _ = call(capsys, "validate", pattern)
    assert status == 1 and "all voxels are 1" in told and "labels -1" in told and "another grid than T1w" in told
    mj.ScalarImage(np.zeros((1, 6, 7, 9), np.float32), LAS).save(folder / "sub-1_T1w.nii.gz")
    status, told, _ = call(capsys, "validate", pattern, "--pipeline", "CropOrPad(4, mask_name='no')")
    assert status == 1 and told.count("no") >= 2
    assert "shapes differ: T1w 6 x 7 x 9, dseg 6 x 7 x 8" in call(capsys, "validate", pattern)[1]


def test_convert_keeps_the_type_that_is_stored(folder, capsys):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.float64).reshape(2, 3, 4), LAS)
    nibabel.save(image, folder / "a.nii")
    assert call(capsys, "convert", folder / "a.nii", folder / "b.nii.gz") == (0, "", "")
    found = nibabel.load(folder / "b.nii.gz")
    assert found.get_data_dtype() == np.float64
    np.testing.assert_array_equal(found.get_fdata(), image.get_fdata())
    np.testing.assert_array_equal(found.affine, LAS)


def test_plot_writes_a_picture(folder, capsys):
    line = ("plot", folder / "sub-1_T1w.nii.gz", "--label", folder / "sub-1_dseg.nii.gz", "--out", folder / "p.png")
    assert call(capsys, *line) == (0, "", "")
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")


LINES = [
    ("info", "no.nii.gz"),
    ("convert", "no.nii.gz", "b.nii.gz"),
    ("convert", "sub-1_T1w.nii.gz", "b.jpg"),
    ("apply", "RandomNois()", "sub-1_T1w.nii.gz", "b.nii.gz"),
    ("apply", "no.yaml", "sub-1_T1w.nii.gz", "b.nii.gz"),
    ("apply", "ToCanonical()", "sub-1_T1w.nii.gz", "no/b.nii.gz"),
    ("preprocess", "{id}.nii.bz2", "ToCanonical()", "out"),
    ("preprocess", "{id", "ToCanonical()", "out"),
    ("preprocess", "no.csv", "ToCanonical()", "out"),
    ("preprocess", "{id}_{modality}.nii.gz", "ToCanonical()", "out", "--images", "a"),
    ("validate", "{id}_{modality}.nii.gz", "--pipeline", "3"),
    ("cache", "info", "no"),
    ("plot", "no.nii.gz"),
    ("demo", "--steps", "1"),
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_an_error_is_one_line(folder, capsys, monkeypatch, line):
    monkeypatch.chdir(folder)
    status, told, said = call(capsys, *line)
    assert status == 1 and told == "" and said.startswith("medjax: ") and said.count("\n") == 1
    assert not (folder / "out").exists()


def test_what_cannot_be_typed_is_status_2(capsys):
    for line in ((), ("preproces",), ("info",), ("validate", "a", "--values", "x"), ("preprocess", "a", "b", "c", "--processes", "2", "--scheduler", "s")):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            cli.main(list(line))
        assert end.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_ctrl_c_is_status_130(folder, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("medjax.cli.preprocess.preprocess", stop)
    line = ("preprocess", folder / "sub-{id}_{modality}.nii.gz", "ToCanonical()", folder / "out")
    assert call(capsys, *line) == (130, "", "medjax: stopped\n")


def test_every_command_says_what_it_is_for():
    told = cli.parser().format_help()
    for command in cli.COMMANDS:
        assert command.__name__.rpartition(".")[2] in told
