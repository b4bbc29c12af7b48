"""The table of benchmarks: every row of a peer is one of medjax, and README's table is that of the results."""

import json

import numpy as np
import pytest

import medjax as mj
from tests.benchmarks import batches, report, rows, volumes

VOLUME = volumes.synthetic((32, 34, 36))


@pytest.fixture(scope="module")
def contestants():
    return rows.contestants(rows.installed(), VOLUME)


def test_every_installed_peer_has_rows_that_medjax_has(contestants):
    libraries = rows.installed()
    assert {"medjax", "torchio", "monai", "batchgeneratorsv2", "scipy"} == set(libraries)
    for name, module in libraries.items():
        assert set(module.calls(VOLUME)) <= set(contestants), name


@pytest.mark.parametrize("row", ["crop", "flip", "pad", "clamp", "gamma", "brightness", "z-norm", "blur"])
def test_libraries_do_the_same_in_a_row(contestants, row):
    """What is timed is the same work: results agree in the interior, peers taken as they are."""
    found = {name: np.squeeze(np.asarray(run())) for name, run in contestants[row].items()}
    ours = found.pop("medjax")
    for name, other in found.items():
        assert other.shape == ours.shape, name
        middle = tuple(slice(n // 4, -(n // 4)) for n in ours.shape)
        np.testing.assert_allclose(other[middle], ours[middle], atol=0.05, err_msg=f"{row} of {name}")


def test_a_row_has_a_median_of_everyone_and_the_ratios(tmp_path):
    slow, fast = [], []
    found = rows.interleaved(
        "a row", {"medjax": lambda: fast.append(0), "torchio": lambda: slow.append(0)}, 5, patience=1.0
    )
    assert len(fast) == len(slow) == 6 and set(found["ms"]) == {"medjax", "torchio"}
    assert report.ratios({"ms": {"medjax": 2.0, "torchio": 5.0}}) == {"torchio": 2.5}


def test_batches_stop_when_their_time_is_over():
    assert [n for n, _ in batches.within(iter([("a", {}), ("b", {})]), limit=-1)] == ["a"]
    assert [n for n, _ in batches.within(iter([("a", {}), ("b", {})]), limit=60)] == ["a", "b"]


def test_the_rows_of_a_card_say_what_they_are():
    """Bytes a second of a copy, and volumes a second of a pipeline as the time of its batches has it."""
    copy = next(batches.rows((16, 16, 16), 2, 1))[1]
    assert copy["GB/s"] == pytest.approx(2 * 2 * 16**3 * 4 / copy["ms in a row"] / 1e6)
    batch = batches.subjects(volumes.synthetic((16, 16, 16)), 2)
    row = batches.pipeline_row(mj.RandomGamma(), batch, 2, 1)
    assert row["volumes/s"] == pytest.approx(2e3 / row["ms in a row"]) and row["compile s"] > 0
    assert [size for *_, size in batches.drawn((32, 32, 32), 8)] == [8, 8, 2, 2]


def test_the_table_of_the_readme_is_that_of_the_results():
    """Made anew by `python -m tests.benchmarks --readme`."""
    result = json.loads((report.RESULTS / "cpu.json").read_text())
    text = report.README.read_text()
    assert report.into_readme(text, result) == text
    assert result["rows"]["affine"]["ms"]["torchio"] > 0 and len(result["rows"]) >= len(report.SHOWN) - 2
