"""Programs that the tests of torch_bridge run in processes of their own: `python programs.py NAME [ARGUMENT]`.

They start processes and fork, and what they guard against is a hang; whoever runs them gives them a time limit. Each
raises if something is wrong.
"""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import psutil
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, DistributedSampler, Subset, random_split

import medjax as mj
import torch_bridge as tio

SHAPE = (20, 24, 16)


def write(folder, count=5, shape=SHAPE):
    """Subjects of files on a grid of 2 mm."""
    subjects = []
    for i in range(count):
        data = np.random.default_rng(i).normal(size=shape)
        for name, array in {"t1": data.astype(np.float32), "seg": (data > 0.5).astype(np.uint8)}.items():
            nibabel.save(nibabel.Nifti1Image(array, np.diag([2.0, 2, 2, 1])), folder / f"{i}_{name}.nii.gz")
        subjects.append(
            tio.Subject(
                t1=tio.ScalarImage(folder / f"{i}_t1.nii.gz"), label=tio.LabelMap(folder / f"{i}_seg.nii.gz"), number=i
            )
        )
    return subjects


def pipeline():
    return tio.Compose([tio.RandomAffine(degrees=10, p=0.7), tio.RandomNoise(std=(0, 0.5), p=0.5)])


def as_list(subjects):
    """A collate function of the user's."""
    return list(subjects)


def drawn(loader, seed=3, epochs=2):
    """All that a loader gives, as tensors."""
    torch.manual_seed(seed)
    found = []
    for _ in range(epochs):
        for batch in loader:
            many = batch if isinstance(batch, list) else [batch]
            found += [item[name][tio.DATA] for item in many for name in ("t1", "label")]
            found += [torch.as_tensor(item["number"]) for item in many]
    return found


def same(one, other):
    assert len(one) == len(other)
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def loaders(method):
    """The same batches with and without workers, for each way of looking at the data set."""
    with tempfile.TemporaryDirectory() as folder:
        subjects = write(Path(folder))
        dataset = tio.SubjectsDataset(subjects, pipeline())
        lambdas = tio.SubjectsDataset(subjects, tio.Compose([tio.RandomNoise(), tio.Lambda(lambda x: 2 * x)]))
        cases = {
            "plain": (dataset, {"batch_size": 2, "shuffle": True, "pin_memory": True}),
            "subset": (Subset(dataset, [4, 2, 0]), {"batch_size": 2}),
            "concatenated": (ConcatDataset([dataset, Subset(dataset, [1])]), {"batch_size": 3}),
            "split": (random_split(dataset, [3, 2], torch.Generator().manual_seed(0))[0], {"batch_size": 3}),
            "lists": (dataset, {"batch_size": 2, "collate_fn": as_list}),
            "single": (dataset, {"batch_size": None}),
            "a function that does not pickle": (lambdas, {"batch_size": 2}),
        }
        if method != "fork":  # starting a worker takes seconds
            cases = {"a function that does not pickle": cases["a function that does not pickle"]}
        for name, (source, options) in cases.items():
            torch.manual_seed(0)
            epochs = 2 if method == "fork" else 1
            alone = drawn(DataLoader(source, num_workers=0, **options), epochs=epochs)
            many = drawn(DataLoader(source, num_workers=2, multiprocessing_context=method, **options), epochs=epochs)
            assert same(alone, many), name
            half = len(alone) // 2
            assert epochs == 1 or not same(alone[:half], alone[half:]), f"{name}: the epochs do not differ"
        if method != "fork":
            return
        options = {"batch_size": 2, "num_workers": 2, "multiprocessing_context": method, "persistent_workers": True}
        assert same(drawn(DataLoader(dataset, **options)), drawn(DataLoader(dataset, **options)))
        own = drawn(tio.SubjectsLoader(dataset, 2, shuffle=True))
        assert same(own, drawn(tio.SubjectsLoader(dataset, 2, shuffle=True, num_workers=2)))


class Looks(Dataset):
    """A user's data set that looks at voxels where it is: in the worker."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        subject = self.dataset[index]
        return subject.t1.data, tio.ZNormalization()(subject).t1.data.mean(), int(subject.label.data.sum())


class Fails(Dataset):
    """A user's data set that meets an error of ours in the worker."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        subject = tio.Subject(t1=tio.ScalarImage(tensor=torch.zeros(1, 4, 4, 4)))
        return tio.ZNormalization()(subject).t1.data


def workers(method):
    """What looks inside a worker is right; what goes wrong there reaches the loop with the subject's name."""
    with tempfile.TemporaryDirectory() as folder:
        subjects = write(Path(folder))
        dataset = tio.SubjectsDataset(subjects, tio.RescaleIntensity((0, 1)))
        expected = [subject.t1.data for subject in map(tio.RescaleIntensity((0, 1)), subjects)]
        loader = DataLoader(Looks(dataset), batch_size=2, num_workers=2, multiprocessing_context=method)
        found = torch.cat([batch[0] for batch in loader])
        torch.testing.assert_close(found, torch.stack(expected))
        for data, needle in ((Fails(), "all equal"), (broken(subjects, folder), "number=1")):
            try:
                list(DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context=method))
            except Exception as error:
                assert needle in str(error), (needle, error)
            else:
                raise AssertionError(f"no error with {needle!r}")
        queue = tio.Queue(dataset, 4, 2, tio.UniformSampler(4))
        try:
            next(iter(DataLoader(queue, batch_size=2, num_workers=1, multiprocessing_context=method)))
        except (RuntimeError, TypeError) as error:
            assert "num_workers=0" in str(error), error
        else:
            raise AssertionError("a queue was taken into workers")


def broken(subjects, folder):
    """A data set of which one file is cut off."""
    path = Path(folder) / "cut.nii.gz"
    path.write_bytes(Path(subjects[1].t1.path).read_bytes()[:-100])
    subjects = [subjects[0], tio.Subject(t1=tio.ScalarImage(path), label=subjects[1].label, number=1)]
    return tio.SubjectsDataset(subjects, tio.RandomNoise())


def save_one(subject, transform, folder, key):
    """What a user does with one subject in a pool."""
    result = transform(subject, key)
    result.t1.save(Path(folder) / f"out_{subject.number}.nii.gz")
    return result.t1.data, torch.ones(400, 400).matmul(torch.ones(400, 400)).sum().item()


def grandchild(subject, transform):
    """A child of a child asks the first process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(transform, subject, 5).result().t1.data


def nothing(path):
    """An error in the process that answers comes back as what it is."""
    try:
        tio.ZNormalization(masking_method="there is none")(tio.Subject(t1=tio.ScalarImage(path)))
    except ValueError as error:
        return str(error)


def lonely(transform, subject):
    """A function that does not pickle cannot be sent; the error says what."""
    try:
        tio.Compose([mj.Lambda(lambda x: x)])(subject)
    except Exception as error:
        return type(error).__name__


def pool():
    """A plain ProcessPoolExecutor, which forks a process that has run JAX and torch's threads."""
    with tempfile.TemporaryDirectory() as folder:
        subjects, transform = write(Path(folder)), pipeline()
        subjects[1].load()
        expected = [transform(subject, i).t1.data for i, subject in enumerate(subjects)]
        torch.ones(2000, 2000).matmul(torch.ones(2000, 2000))
        function = partial(save_one, transform=transform, folder=folder)
        with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as executor:
            found = [executor.submit(function, subject, key=i) for i, subject in enumerate(subjects)]
            for i, future in enumerate(found):
                voxels, _ = future.result()
                assert torch.equal(voxels, expected[i])
                torch.testing.assert_close(tio.ScalarImage(Path(folder) / f"out_{i}.nii.gz").data, expected[i])
            assert torch.equal(
                executor.submit(grandchild, subjects[0], transform).result(), transform(subjects[0], 5).t1.data
            )
            assert "there is none" in executor.submit(nothing, subjects[0].t1.path).result()
            assert executor.submit(lonely, transform, subjects[0]).result() is not None
        assert "patch" in repr(executor_patch(subjects[0]))


def executor_patch(subject):
    """Samplers and grids work in a child too."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
        patch = executor.submit(tio.UniformSampler(8), subject, key=1).result()
        assert torch.equal(patch.t1.data, tio.UniformSampler(8)(subject, key=1).t1.data)
        grid = executor.submit(tio.GridSampler, subject, 8, 2, "reflect").result()
        assert torch.equal(grid[3].t1.data, tio.GridSampler(subject, 8, 2, "reflect")[3].t1.data)
    return "patch"


def orphan():
    """A child that outlives its parent is told so."""
    subject = tio.Subject(t1=tio.ScalarImage(tensor=torch.ones(1, 4, 4, 4)))
    read, written = os.pipe()
    middle = os.fork()
    if middle == 0:
        tio.forked.State.forked = False  # as if this were the process that has JAX
        tio.forked.State.door = tio.forked.State.inside = None
        if os.fork() == 0:
            os.close(read)
            time.sleep(1)  # the parent has ended
            try:
                tio.RandomNoise()(subject)
                text = b"computed"
            except RuntimeError as error:
                text = str(error).encode()
            os.write(written, text)
        os._exit(0)
    os.close(written)
    os.waitpid(middle, 0)
    with os.fdopen(read, "rb") as pipe:
        assert b"has ended" in pipe.read()


class Limit(Exception):
    """What an alarm raises."""


def interrupt_at(line):
    """Raise Limit before the line-th line that runs in the module that asks, in this thread."""
    left = [line]

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.endswith("torch_bridge/forked.py"):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                raise Limit
        return trace

    sys.settrace(trace)


def alarmed(*_):
    raise Limit


def in_fork(function, *arguments):
    """Call in a forked child; raise here if it does there."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, process.exitcode


def interrupted():
    """An interrupted call leaves nothing behind that the next one, of the same shape, could take for its answer."""
    x, t = torch.zeros(1, 8, 8, 8), tio.RandomNoise()
    expected = {key: t(x, key=key) for key in range(4)}
    assert not torch.equal(expected[0], expected[1])

    def check(key, when):
        assert torch.equal(t(x, key=key), expected[key]), f"another's answer after an interrupt {when}"

    def lines():
        before = None
        for line in range(1, 10000):
            interrupt_at(line)
            try:
                t(x, key=0)
                break
            except Limit:
                pass
            finally:
                sys.settrace(None)
            check(1 + line % 3, f"at line {line}")
            gc.collect()
            before = before or psutil.Process().num_fds()
            # What closes a file can itself be interrupted, on two lines; nothing else leaves one open.
            assert psutil.Process().num_fds() <= before + 2, f"a file is left open by an interrupt at line {line}"
        assert line > 30, "nothing was interrupted"

    def moments():
        signal.signal(signal.SIGALRM, alarmed)
        count = 0
        for k in range(150):
            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-4 + 6e-5 * k)
                t(x, key=0)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Limit:
                count += 1
            check(1 + k % 3, f"after {k} steps of time")
        assert count, "nothing was interrupted"

    in_fork(lines)
    in_fork(moments)
    check(1, "in children")


def own_and_numbered():
    """A reply to another question is refused, and the connection it came on is not used again."""
    x, t = torch.zeros(1, 4, 4, 4), tio.RandomNoise()
    expected = t(x, key=1)

    def child():
        tio.RandomNoise()(x, key=0)
        connection, number = tio.forked.State.local.connection
        tio.forked.State.local.connection = connection, number + 1  # as if a question had been lost on the way
        tio.forked.send(connection, number, *tio.forked.packed((pow, (2, 3))))  # its answer comes first
        try:
            t(x, key=1)
        except RuntimeError as error:
            assert "got the answer to question" in str(error), error
        else:
            raise AssertionError("another question's answer was taken")
        assert torch.equal(t(x, key=1), expected)

    in_fork(child)


STRANGER = """
import os, pickle, socket, struct, sys
parent, mark = int(sys.argv[1]), sys.argv[2]

class Evil:
    def __reduce__(self):
        return open, (mark, "w")

for fd in range(3, 256):  # what a program that was started has inherited
    try:
        if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
            raise SystemExit(f"descriptor {fd} is a socket")
    except OSError:
        pass
names = {line.split()[6]: line.split()[7] for line in open("/proc/net/unix").readlines()[1:] if len(line.split()) > 7}
held = 0
for fd in os.listdir(f"/proc/{parent}/fd"):
    path = f"/proc/{parent}/fd/{fd}"
    try:
        target = os.readlink(path)
    except OSError:
        continue
    if not target.startswith("socket:"):
        continue
    held += 1
    try:
        os.open(path, os.O_RDWR)
        raise SystemExit(f"{target} was opened by a stranger")
    except OSError:
        pass
    name = names.get(target[8:-1])
    if name is None or not name.startswith("@"):
        continue
    for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
        try:
            door = socket.socket(socket.AF_UNIX, kind)
            door.connect(chr(0) + name[1:])
            body = pickle.dumps((pickle.dumps(Evil()), []))
            file = os.memfd_create("stranger")
            os.ftruncate(file, 64)
            socket.send_fds(door, [struct.pack("Q", len(body))], [file])
            door.sendall(body)
            door.recv(8)
        except OSError:
            pass
print("asked", held)
"""


def strangers():
    """A process of the same user that was not forked finds no way in, and nothing that it sends is unpickled."""
    x, t = torch.zeros(1, 4, 4, 4), tio.RandomNoise()
    in_fork(t, x, 1)
    with tempfile.TemporaryDirectory() as folder:
        mark = Path(folder) / "mark"
        found = subprocess.run(
            [sys.executable, "-c", STRANGER, str(os.getpid()), str(mark)],
            capture_output=True, text=True, close_fds=False, timeout=30,
        )  # fmt: skip
        assert found.returncode == 0, found.stderr
        assert int(found.stdout.split()[1]) >= 2, "it has not seen the door"
        time.sleep(0.2)
        assert not mark.exists(), "what a stranger sent was unpickled"
    in_fork(t, x, 1)


def crowd(count="50"):
    """Many children at once, and children of theirs, while threads of this process compute and fork."""
    x, t = torch.zeros(1, 8, 8, 8), tio.Compose([tio.RandomNoise(), tio.RandomGamma()])
    number = int(count)
    expected = [t(x, key=key) for key in range(number)]
    before = psutil.Process().num_fds()
    stop = threading.Event()

    def child(key, deep):
        for _ in range(3):
            assert torch.equal(t(x, key=key), expected[key])
        if deep:
            in_fork(child, key, False)

    def load():
        while not stop.is_set():
            t(x, key=0)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=child, args=(key, key % 5 == 0)) for key in range(number)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    stop.set()
    for thread in threads:
        thread.join()
    assert [process.exitcode for process in processes] == [0] * number
    del processes, process
    deadline = time.monotonic() + 10
    while (psutil.Process().num_fds() > before + 2 or threading.active_count() > 2) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.05)
    assert psutil.Process().num_fds() <= before + 2, "the two ends of the door are all that is left"
    assert threading.active_count() <= 2


def widowed():
    """A child that waits for its answer is told when the process that computes it is killed, siblings or not."""
    read, written = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.setpgid(0, 0)
        tio.forked.State.forked = False  # as if this were the process that has JAX
        tio.forked.State.door = tio.forked.State.inside = None
        for _ in range(3):
            if os.fork() == 0:
                os.close(read)
                try:
                    tio.forked.run(time.sleep, 60)
                except RuntimeError as error:
                    os.write(written, b"ended." if "has ended" in str(error) else b"other.")
                os._exit(0)
            time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(written)
    os.waitpid(middle, 0)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"ended." * 3


def leaks():
    """Nothing is left of a loader with workers: no file, thread or process; and memory does not grow."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = tio.SubjectsDataset(write(Path(folder)), pipeline())
        process = psutil.Process()

        def counts():
            gc.collect()
            return process.num_fds(), threading.active_count(), len(process.children())

        def epoch():
            for batch in DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork"):
                assert batch["t1"][tio.DATA].shape == (len(batch["number"]), 1, *SHAPE)
            next(iter(tio.SubjectsLoader(dataset, 2, num_workers=1)))
            queue = tio.Queue(dataset, 4, 2, tio.UniformSampler(8), num_workers=2)
            next(iter(queue))

        epoch()
        epoch()
        before, memory = counts(), process.memory_info().rss
        for _ in range(6):
            epoch()
        deadline = time.monotonic() + 10
        while counts() > before and time.monotonic() < deadline:
            time.sleep(0.1)
        after = counts()
        assert all(a <= b for a, b in zip(after, before, strict=True)), (before, after)
        assert process.memory_info().rss < 1.05 * memory + 2e7


def shares():
    """Two processes of torch.distributed: streams of their own, a checkpoint for both, each subject in one of them."""
    with tempfile.TemporaryDirectory() as folder:
        subjects = write(Path(folder), 6)
        torch.multiprocessing.spawn(share, (subjects, folder), 2)
        one, two = (torch.load(Path(folder) / f"{rank}.pt") for rank in range(2))

        alone = tio.Augment(pipeline(), seed=3)
        assert same(one["augmented"], [alone(voxels()), alone(voxels())])
        assert not any(map(torch.equal, one["augmented"], two["augmented"]))
        assert torch.equal(one["weights"], two["weights"])

        for epoch, (indices, others) in enumerate(zip(one["indices"], two["indices"], strict=True)):
            assert sorted(indices + others) == list(range(6)), "each subject is in one rank"
            dataset = tio.SubjectsDataset(subjects, pipeline())
            for rank, part, found in ((0, indices, one), (1, others, two)):
                loader = DataLoader(Subset(dataset, part), batch_size=3)
                assert same(found["loaded"][epoch], drawn(loader, epoch, 1)) == (rank == 0), (rank, epoch)
                exact = tio.SubjectsDataset(subjects, tio.ZNormalization())
                assert same(found["exact"][epoch], drawn(DataLoader(Subset(exact, part), batch_size=3), 0, 1))
        assert one["indices"][0] != one["indices"][1], "the epochs do not differ"
        for name in ("loader", "queue"):
            check_parts(one[name], two[name], 2 if name == "queue" else 1)


def check_parts(one, two, times):
    """Two ranks have every subject once, `times` over, in each epoch; by draws and in an order of their own."""
    assert len(one["numbers"]) == len(two["numbers"]) == 2
    for mine, others in zip(one["numbers"], two["numbers"], strict=True):
        assert len(mine) == len(others) and sorted(mine + others) == sorted(times * list(range(6))), (mine, others)
        assert not set(mine) & set(others)
    assert one["numbers"][0] != one["numbers"][1], "the epochs do not differ"
    assert not any(torch.equal(a, b) for a in one["voxels"] for b in two["voxels"])


def parts(make, folder, rank):
    """What a rank sees of a loader in two epochs; and that all of them go on from the state of the first."""
    torch.manual_seed(11 + rank)  # ranks need not agree in it
    loader, found = make(), {"numbers": [], "voxels": []}
    for _ in range(2):
        seen = [(batch["number"].tolist(), batch["t1"][tio.DATA].clone()) for batch in loader]
        assert len(seen) == len(loader)
        found["numbers"].append([number for numbers, _ in seen for number in numbers])
        found["voxels"].extend(voxels for _, voxels in seen)
    ahead = make()
    next(iter(ahead))
    if rank == 0:
        torch.save(ahead.state_dict(), Path(folder) / "state.pt")
    torch.distributed.barrier()
    resumed = make()
    resumed.load_state_dict(torch.load(Path(folder) / "state.pt"))
    rest = [number for batch in resumed for number in batch["number"].tolist()]
    first = found["numbers"][0]
    assert set(rest) <= set(first) and len(rest) == len(first) - 2, (rest, first)
    torch.distributed.barrier()
    return found


def voxels():
    """A batch that is the same in every process."""
    return torch.rand(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))


def share(rank, subjects, folder):
    """What one of the two processes does; it writes what it found."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    model, found = network(), []
    train(model, found)
    if rank == 0:
        torch.save(model.module.state_dict(), Path(folder) / "checkpoint.pt")
    torch.distributed.barrier()
    train(model, found)

    resumed, again = network(seed=8), []
    resumed.module.load_state_dict(torch.load(Path(folder) / "checkpoint.pt"))
    train(resumed, again)
    assert torch.equal(again[0], found[1]), "the draws do not go on where they were"
    assert torch.equal(resumed.module[1].weight, model.module[1].weight)

    result = {"augmented": found, "weights": model.module[1].weight.detach()}
    result |= {"indices": [], "loaded": [], "exact": []}
    for epoch in range(2):
        for name, t in (("loaded", pipeline()), ("exact", tio.ZNormalization())):
            dataset = tio.SubjectsDataset(subjects, t)
            sampler = DistributedSampler(dataset, seed=4)
            sampler.set_epoch(epoch)
            result[name].append(drawn(DataLoader(dataset, batch_size=3, sampler=sampler), epoch, 1))
        result["indices"].append(list(sampler))
    dataset = tio.SubjectsDataset(subjects, pipeline())
    result["loader"] = parts(lambda: tio.SubjectsLoader(dataset, 2, shuffle=True), folder, rank)
    sampler = DistributedSampler(dataset)  # as Lightning puts it into a loader: the state is of no rank either
    chosen = parts(lambda: tio.SubjectsLoader(dataset, 2, sampler=DistributedSampler(dataset)), folder, rank)
    assert sorted(chosen["numbers"][0]) == sorted(sampler)
    plain = tio.SubjectsDataset(subjects, tio.RandomNoise(std=(0.5, 1)))
    patches = partial(tio.Queue, plain, 8, 2, tio.UniformSampler(4))
    result["queue"] = parts(lambda: tio.SubjectsLoader(patches(), 2), folder, rank)
    torch.save(result, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def network(seed=3):
    """A network of one layer behind an augmentation."""
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(tio.Augment(pipeline(), seed=seed), torch.nn.Conv3d(1, 2, 3))
    return torch.nn.parallel.DistributedDataParallel(layers)


def train(model, found):
    """One step, which keeps what the network got."""
    keep = model.module[0].register_forward_hook(lambda module, given, result: found.append(result.clone()))
    model(voxels()).square().mean().backward()
    keep.remove()
    with torch.no_grad():
        for weights in model.parameters():
            weights -= 0.1 * weights.grad
            weights.grad = None


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
    print("done")
