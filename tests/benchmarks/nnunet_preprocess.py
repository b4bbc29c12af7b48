"""nnU-Net's preprocessing against nnunetv2 itself, on small cases: differences, and the ratio of times.

nnunetv2's time, one call each, includes its sampling of foreground locations, which medjax does not do.

Runs where nnunetv2 is importable, in an environment of its own (it is in no group here):
python tests/benchmarks/nnunet_preprocess.py
"""

import time
from typing import Any

import numpy as np
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from scipy.ndimage import gaussian_filter

import medjax as mj

CT = {
    "mean": 40.0,
    "std": 120.0,
    "percentile_00_5": -250.0,
    "percentile_99_5": 410.0,
    "median": 1.0,
    "min": 0,
    "max": 1,
}
DATASET = {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}, "channel_names": {"0": "ct", "1": "t1"}}
CASES: dict[str, tuple[tuple[int, int, int], tuple[float, ...], list[float], list[int]]] = {
    "isotropic": ((36, 44, 52), (1.0, 1.0, 1.0), [1.6, 0.7, 1.1], [0, 1, 2]),
    "ties": ((36, 44, 52), (1.0, 1.0, 1.0), [0.5, 0.5, 2.0], [0, 1, 2]),
    "coarse old axis": ((60, 52, 14), (0.7, 0.8, 5.0), [2.5, 1.0, 1.0], [0, 1, 2]),
    "coarse new axis": ((50, 52, 34), (1.0, 1.0, 2.0), [1.3, 4.5, 1.2], [1, 0, 2]),
    "transposed": ((30, 64, 62), (5.0, 0.8, 0.7), [5.0, 1.1, 1.1], [2, 0, 1]),
    "plan of two axes": ((44, 40, 12), (0.9, 0.9, 4.0), [1.4, 0.8], [0, 1, 2]),
    "unchanged": ((20, 22, 24), (1.0, 1.0, 1.0), [1.0, 1.0, 1.0], [0, 1, 2]),
}


def case(shape: tuple[int, int, int], spacing: tuple[float, ...], seed: int) -> mj.Subject:
    """Two channels that are 0 at the sides and in a hole, and four labels, one of them in part outside."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.normal(size=(3, *shape)), (0, 2, 2, 2))
    axes = np.meshgrid(*(np.linspace(-1.2, 1.2, n) for n in shape), indexing="ij")
    radius = axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2
    image = np.stack([900 * fields[0] / fields[0].std() / 3, 100 + 30 * fields[1] / fields[1].std()])
    image[:, (radius > 1) | (radius < 0.03)] = 0
    label = np.digitize(fields[2] / fields[2].std(), (0.3, 0.9, 1.4)) * (radius < 1.05)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-30, 12, 5)
    scan = mj.ScalarImage(image.astype(np.float32), affine)
    return mj.Subject(scan=scan, label=mj.LabelMap(label[None].astype(np.uint8), affine))


def plans_of(spacing: list[float], forward: list[int], masked: bool) -> dict[str, Any]:
    """What the preprocessor reads of a plans file."""
    rule, kwargs = "resample_data_or_seg_to_shape", {"order_z": 0, "force_separate_z": None}
    configuration = {
        "architecture": {},
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization", "ZScoreNormalization"],
        "use_mask_for_norm": [False, masked],
        "resampling_fn_data": rule,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **kwargs},
        "resampling_fn_seg": rule,
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **kwargs},
        "resampling_fn_probabilities": rule,
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **kwargs},
    }
    return {
        "configurations": {"3d_fullres": configuration},
        "transpose_forward": forward,
        "transpose_backward": [int(n) for n in np.argsort(forward)],
        "foreground_intensity_properties_per_channel": {"0": CT, "1": CT},
    }


def main() -> None:
    for name, (shape, spacing, target, forward) in CASES.items():
        for masked in (False, True):
            subject = case(shape, spacing, seed=len(name) + masked)
            plans = plans_of(target, forward, masked)
            pre = mj.nnunet_preprocess_from_plans(plans)
            manager = PlansManager(plans)
            configuration = manager.get_configuration("3d_fullres")
            theirs = DefaultPreprocessor(verbose=False)
            zyx = {n: np.ascontiguousarray(i.numpy().transpose(0, 3, 2, 1)) for n, i in subject.images.items()}
            zyx["label"] = zyx["label"].astype(np.int16)

            start = time.perf_counter()
            properties: dict[str, Any] = {"spacing": list(spacing)[::-1]}
            data, seg, properties = theirs.run_case_npy(
                zyx["scan"], zyx["label"], properties, manager, configuration, DATASET
            )
            middle = time.perf_counter()
            ours = pre(subject)
            end = time.perf_counter()

            scan, label = ours.scan.numpy(), ours.label.numpy()
            assert scan.shape == data.shape, (scan.shape, data.shape)
            scores = np.random.default_rng(0).normal(size=(4, *scan.shape[1:])).astype(np.float32)
            scores = gaussian_filter(scores, (0, 2, 2, 2))
            restored = pre.restore(mj.ScalarImage(scores, ours.scan.affine), subject).numpy()
            back = convert_predicted_logits_to_segmentation_with_correct_shape(
                scores.copy(), manager, configuration, manager.get_label_manager(DATASET), properties
            )
            print(
                f"{name:17} masked={masked!s:5} {'x'.join(map(str, scan.shape[1:])):9} "
                f"difference / range {(np.abs(scan - data).max((1, 2, 3)) / np.ptp(data, (1, 2, 3))).max():.1e}, "
                f"labels that differ {(label != seg).mean():.1e} ({label.dtype}, {seg.dtype}), "
                f"restored {(restored.argmax(0) != back.transpose(2, 1, 0)).mean():.1e}, "
                f"nnunetv2 / medjax {(middle - start) / (end - middle):.2f}"
            )


if __name__ == "__main__":
    main()
