"""Programs of TorchIO's users, each reduced to what it does with TorchIO: they take the module and a folder of files.

A program gives what it would train on or save. Names that end in `_drawn` hold what was drawn: shapes, types and keys
must agree there, and everywhere else the voxels too.
"""

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, random_split

SHAPE = (12, 10, 8)


def written(tio, folder, count=4, **metadata):
    """Subjects of files, which are the same for every module: t1, t2 and label on a grid of 2 x 1 x 1.5 mm."""
    affine, subjects = np.diag([-2.0, 1.0, 1.5, 1.0]), []
    for i in range(count):
        random, paths = np.random.default_rng(i), [folder / f"{i}_{name}.nii.gz" for name in ("t1", "t2", "label")]
        if not paths[0].exists():
            import nibabel

            t1, t2 = 100 + 20 * random.normal(size=(2, *SHAPE))
            label = np.zeros(SHAPE, np.uint8)
            label[3:9, 2:8, 2:6] = random.integers(1, 3, (6, 6, 4))
            for path, data in zip(paths, (t1.astype(np.float32), t2.astype(np.float32), label)):
                nibabel.save(nibabel.Nifti1Image(data, affine), path)
        t1, t2, label = paths
        subjects.append(
            tio.Subject(
                t1=tio.ScalarImage(t1),
                t2=tio.ScalarImage(t2),
                label=tio.LabelMap(label),
                name=f"s{i}",
                age=30 + i,
                **metadata,
            )
        )
    return subjects


def segmentation_with_a_queue(tio, folder):
    """Split subjects, a queue of patches for each part, batches for a network."""
    transform = tio.Compose(
        [tio.ToCanonical(), tio.ZNormalization(), tio.RandomFlip(axes=("LR",)), tio.RandomNoise(p=0.5)]
    )
    training, _ = random_split(written(tio, folder), (3, 1), generator=torch.Generator().manual_seed(42))
    dataset = tio.SubjectsDataset(training, transform=transform)
    queue = tio.Queue(dataset, 12, 4, tio.data.UniformSampler((6, 6, 4)), num_workers=0, shuffle_patches=True)
    batches = list(DataLoader(queue, batch_size=4))
    return {"length": len(queue), "count": len(batches), "batch_drawn": batches[0]["t1"][tio.DATA],
            "label_drawn": batches[0]["label"]["data"], "place_drawn": batches[0][tio.LOCATION]}  # fmt: skip


def lightning_data_module(tio, folder):
    """The sets of a data module: preprocessing alone for validation, with augmentation for training."""
    preprocess = tio.Compose(
        [tio.ToCanonical(), tio.Resample("t1"), tio.CropOrPad((10, 10, 10)), tio.transforms.ZNormalization()]
    )
    augment = tio.Compose(
        [tio.RandomAffine(), tio.RandomGamma(p=0.1), tio.RandomMotion(p=0.1), tio.RandomBiasField(p=0.1)]
    )
    training = tio.SubjectsDataset(
        written(tio, folder), transform=tio.Compose([preprocess, augment, tio.OneHot(num_classes=3)])
    )
    validation = tio.SubjectsDataset(
        written(tio, folder), transform=tio.Compose([preprocess, tio.OneHot(num_classes=3)])
    )
    batch = next(iter(DataLoader(validation, batch_size=2)))
    drawn = next(iter(DataLoader(training, batch_size=2)))
    return {"t1": batch["t1"][tio.DATA], "label": batch["label"][tio.DATA], "name": batch["name"], "age": batch["age"],
            "affine": batch["t1"][tio.AFFINE], "keys": sorted(batch), "t1_drawn": drawn["t1"][tio.DATA]}  # fmt: skip


def inference_on_a_grid(tio, folder):
    """Patches of a subject through a network, and the prediction as an image beside it."""
    subject = tio.Compose([tio.ToCanonical(), tio.RescaleIntensity((0, 1))])(written(tio, folder)[0])
    sampler = tio.inference.GridSampler(subject, (6, 6, 4), (2, 2, 2), padding_mode="edge")
    aggregator = tio.inference.GridAggregator(sampler, overlap_mode="average")
    for batch in DataLoader(sampler, batch_size=3):
        aggregator.add_batch(2 * batch["t1"][tio.DATA] + 1, batch[tio.LOCATION])
    prediction = tio.ScalarImage(tensor=aggregator.get_output_tensor(), affine=subject.t1.affine)
    subject.add_image(prediction, "prediction")
    prediction.save(folder / "prediction.nii.gz")
    return {
        "count": len(sampler),
        "volume": subject.prediction.data,
        "read": tio.ScalarImage(folder / "prediction.nii.gz").data,
    }


def patches_one_by_one(tio, folder):
    """A grid that is iterated without a loader, classes put together by cropping."""
    subject = tio.Subject(image=tio.Image(folder / "0_t1.nii.gz", tio.INTENSITY)) if written(tio, folder) else None
    sampler = tio.GridSampler(subject, patch_size=(4, 4, 4), patch_overlap=(2, 2, 2))
    aggregator = tio.GridAggregator(sampler)
    for patch in sampler:
        probability = torch.cat([patch["image"][tio.DATA], -patch["image"]["data"]]).softmax(0)
        aggregator.add_batch(probability.unsqueeze(0), patch[tio.LOCATION].unsqueeze(0))
    return {"label": aggregator.get_output_tensor().argmax(0, keepdim=True)}


def own_dataset(tio, folder):
    """A data set of the user's that makes a subject in __getitem__ and gives arrays."""

    class Data(Dataset):
        def __init__(self):
            written(tio, folder)
            self.transform = tio.Compose([tio.RescaleIntensity((0, 1)), tio.RandomFlip(p=0.5), tio.RandomAffine(p=0.5)])

        def __len__(self):
            return 4

        def __getitem__(self, i):
            image, label = folder / f"{i}_t1.nii.gz", folder / f"{i}_label.nii.gz"
            subject = self.transform(tio.Subject(image=tio.ScalarImage(str(image)), label=tio.LabelMap(str(label))))
            return subject["image"][tio.DATA].numpy().astype(np.float32), subject["label"][tio.DATA].numpy().astype(
                np.int64
            )

    image, label = next(iter(DataLoader(Data(), batch_size=2)))
    return {"image_drawn": image, "label_drawn": label}


def own_label_transform(tio, folder):
    """Transforms by subclassing: one of labels, one of intensities with an argument, among the library's own."""

    class Merge(tio.transforms.LabelTransform):
        def apply_transform(self, subject):
            for image in self.get_images(subject):
                image.set_data((image.data > 0).to(image.data.dtype))
            return subject

    class Window(tio.IntensityTransform):
        def __init__(self, low, high, **kwargs):
            super().__init__(**kwargs)
            self.low, self.high = low, high
            self.args_names = ["low", "high"]

        def apply_transform(self, subject):
            for name, image in self.get_images_dict(subject).items():
                image.set_data(image.data.clamp(self.low, self.high))
                subject[f"{name}_seen"] = True
            return subject

    transform = tio.Compose(
        [tio.ToCanonical(), Window(80, 120, exclude=["t2"]), Merge(), tio.Pad(1), tio.RandomNoise(std=0, p=0.5)]
    )
    subject = tio.SubjectsDataset(written(tio, folder), transform=transform)[1]
    return {"t1": subject.t1.data, "t2": subject["t2"].data, "label": subject.label.data, "keys": sorted(subject.keys()),
            "names": [type(t).__name__ for t in transform.transforms[3:]]}  # fmt: skip


def histories(tio, folder):
    """Predictions on augmented subjects, taken back by the history: augmentation at test time."""
    transform = tio.Compose(
        [tio.RandomFlip(axes=(0, 1), flip_probability=0.5), tio.RandomNoise(), tio.Pad((1, 2, 3, 0, 1, 2))]
    )
    backs = []
    for subject in tio.SubjectsDataset(written(tio, folder)):
        augmented = transform(subject)
        augmented.label.set_data(augmented.label.data + 0)
        back = augmented.apply_inverse_transform(warn=False, ignore_intensity=True)
        backs.append(back.label.data)
    return {"labels": torch.stack(backs).float().mean(0), "steps": len(augmented.get_applied_transforms()) >= 2}


def landmarks(tio, folder):
    """Landmarks of a histogram, learned from files and used by name."""
    paths = [subject.t1.path for subject in written(tio, folder)]
    found = tio.HistogramStandardization.train(paths, masking_function=lambda x: x > 90, progress=False)
    np.save(folder / "landmarks.npy", found)
    standardize = tio.HistogramStandardization({"t1": folder / "landmarks.npy"}, include=["t1"])
    transform = tio.Compose([standardize, tio.ZNormalization(masking_method=tio.ZNormalization.mean, include=["t1"])])
    return {"landmarks": np.asarray(found, np.float32), "t1": transform(written(tio, folder)[0]).t1.data}


def weighted_patches(tio, folder):
    """Samplers by probability and by label, one patch and several, with their maps."""
    subject = tio.SubjectsDataset(written(tio, folder))[0]
    by_label = tio.data.LabelSampler((4, 4, 4), "label", label_probabilities={0: 1, 1: 2, 2: 1})
    by_map = tio.sampler.WeightedSampler(4, "label")
    several = list(by_label(subject, num_patches=3))
    return {"map": by_label.get_probability_map(subject), "one_drawn": next(by_map(subject)).t1.data,
            "several_drawn": torch.stack([patch.t1.data for patch in several]), "count": len(several),
            "spacing": several[0].spacing}  # fmt: skip


def simulation(tio, folder):
    """Images made of labels, with artefacts chosen among several."""
    transform = tio.Compose(
        [
            tio.RandomLabelsToImage(label_key="label", image_key="made", default_std=(0.05, 0.1)),
            tio.OneOf({tio.RandomBlur(): 0.5, tio.RandomSpike(): 0.25, tio.RandomGhosting(): 0.25}),
            tio.RandomElasticDeformation(num_control_points=5, max_displacement=1, locked_borders=1),
            tio.RescaleIntensity(out_min_max=(-1, 1), percentiles=(1, 99)),
        ]
    )
    subject = transform(written(tio, folder)[0])
    return {"made_drawn": subject.made.data, "label_drawn": subject.label.data.long(), "keys": sorted(subject)}


def several_readers(tio, folder):
    """Tensors by a reader of the user's, arrays and SimpleITK images through a transform, slices, a chosen part."""
    torch.save(torch.arange(4 * 480.0).reshape(4, 8, 10, 6), folder / "cube.pt")
    image = tio.ScalarImage(folder / "cube.pt", reader=lambda path: (torch.load(path), None))
    dataset = tio.SubjectsDataset([tio.Subject(image=image, index=i) for i in range(4)], transform=tio.Crop((1, 1, 2)))
    loader = DataLoader(dataset, batch_size=2, sampler=SubsetRandomSampler([1, 3]))
    crop = tio.CropOrPad((6, 6, 6))
    batch = next(iter(loader))
    return {"batch": batch["image"][tio.DATA], "sum": batch["index"].sum(), "tensor": crop(batch["image"][tio.DATA][0]),
            "array": tio.Blur((1, 1, 1))(image.numpy()), "sitk": crop(image).as_sitk().GetSize(),
            "part": [subject["index"] for subject in Subset(dataset, [2, 0])], "box": image[2:5, 1:].data}  # fmt: skip


def collated_by_hand(tio, folder):
    """A collate function of the user's over subjects, and the subjects of a batch back."""

    def collate(subjects):
        images = torch.stack([subject["t1"][tio.DATA] for subject in subjects])
        return {"images": images, "ages": torch.tensor([subject["age"] for subject in subjects])}

    transform = tio.Compose(
        [tio.Lambda(lambda x: x / 100, types_to_apply=[tio.INTENSITY]), tio.CropOrPad((8, 8, 8), mask_name="label")]
    )
    dataset = tio.SubjectsDataset(written(tio, folder), transform=transform)
    by_hand = next(iter(DataLoader(dataset, batch_size=4, collate_fn=collate)))
    batch = next(iter(tio.SubjectsLoader(dataset, batch_size=4)))
    subjects = tio.utils.get_subjects_from_batch(batch)
    tio.utils.add_images_from_batch(subjects, batch["t1"][tio.DATA] + 1)
    return {**by_hand, "names": [subject["name"] for subject in subjects], "prediction": subjects[2].prediction.data,
            "shape": subjects[0].spatial_shape, "origin": subjects[3].t1.origin}  # fmt: skip


PROGRAMS = (
    segmentation_with_a_queue,
    lightning_data_module,
    inference_on_a_grid,
    patches_one_by_one,
    own_dataset,
    own_label_transform,
    histories,
    landmarks,
    weighted_patches,
    simulation,
    several_readers,
    collated_by_hand,
)
