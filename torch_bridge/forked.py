"""A forked child never runs JAX, which does not survive a fork: it asks the process that it was forked from.

Before the first fork that process opens a socket and a thread that answers. A child connects, sends a function and its
arguments and waits; arrays lie in a memory file that is handed over, one copy here and none there. The process's own
JAX, its compiled programs and its GPU answer, so nothing is started and nothing is to be ended: when the child ends,
the connection does. A child of a child asks the first process.
"""

import io
import mmap
import os
import pickle
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import jax
import torch

ALIGNMENT = 64
ENDED = (
    "this process was forked from one that has ended, and JAX does not survive a fork: keep that process running, or "
    "start workers by spawn or forkserver"
)


class State:
    """What this process knows: the address it asks or answers at, and whether it is a forked child."""

    address: str | None = None
    listener: socket.socket | None = None
    forked = False
    local = threading.local()


def in_child() -> bool:
    """Whether this process was forked from one that had the bridge."""
    return State.forked


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), here or, in a forked child, in the process that it was forked from.

    The function must be found by module and name, and the arguments must pickle. What it raises is raised here.
    """
    return ask(function, arguments) if State.forked else function(*arguments)


def ask(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The answer of the process that this one was forked from."""
    connection = getattr(State.local, "connection", None) or connect()
    State.local.connection = connection
    message = packed((function, arguments))  # what does not pickle raises here, before anything is sent
    try:
        send(connection, *message)
        received = receive(connection)
    except (EOFError, OSError):
        State.local.connection = None
        raise RuntimeError(ENDED) from None
    answered, value = unpacked(*received)
    if answered:
        return value
    error, text = value
    error.add_note(f"In the process that runs JAX for forked children:\n{text}")
    raise error


def connect() -> socket.socket:
    """A connection to the process that answers."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(State.address or "")
    except OSError:
        connection.close()
        raise RuntimeError(ENDED) from None
    return connection


def packed(value: Any) -> tuple[bytes, list[memoryview]]:
    """A pickle of a value, and the arrays in it beside it."""
    buffers: list[memoryview] = []
    head = pickle.dumps(value, 5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
    return pickle.dumps((head, [buffer.nbytes for buffer in buffers])), buffers


def send(connection: socket.socket, meta: bytes, buffers: list[memoryview]) -> None:
    """Send what `packed` made: its length with the memory file that holds the arrays, then the rest."""
    size = max(1, sum(rounded(buffer.nbytes) for buffer in buffers))
    file = os.memfd_create("torch_bridge", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, size)
        with mmap.mmap(file, size) as memory:
            place = 0
            for buffer in buffers:
                memory[place : place + buffer.nbytes] = buffer
                place += rounded(buffer.nbytes)
        socket.send_fds(connection, [struct.pack("Q", len(meta))], [file])
    finally:
        os.close(file)
    connection.sendall(meta)


def receive(connection: socket.socket) -> tuple[bytes, memoryview]:
    """What the other side sent, still packed, and the memory file. Raises EOFError if it has gone."""
    head, files, _, _ = socket.recv_fds(connection, 8, 1)
    try:
        if len(head) < 8 or not files:
            raise EOFError("the other side has closed the connection")
        memory = memoryview(mmap.mmap(files[0], os.fstat(files[0]).st_size))
    finally:
        for file in files:
            os.close(file)
    remaining, parts = struct.unpack("Q", head)[0], []
    while remaining:
        part = connection.recv(min(remaining, 1 << 20))
        if not part:
            raise EOFError("the other side has closed the connection")
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts), memory


def unpacked(meta: bytes, memory: memoryview) -> Any:
    """The value of a message; its arrays lie in the memory file."""
    body, sizes = pickle.loads(meta)
    buffers, place = [], 0
    for size in sizes:
        buffers.append(memory[place : place + size])
        place += rounded(size)
    return Unpickler(io.BytesIO(body), buffers=buffers).load()


def rounded(size: int) -> int:
    """The next multiple of the alignment at which JAX on a CPU takes memory without a copy."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class Unpickler(pickle.Unpickler):
    """Looks among the imported modules first, without the lock of an import that may be waiting for this very child."""

    def find_class(self, module: str, name: str) -> Any:
        found: Any = sys.modules.get(module)
        if found is None:
            return super().find_class(module, name)
        for part in name.split("."):
            found = getattr(found, part)
        return found


# -- in the process that answers


def before_fork() -> None:
    """Be ready to answer, from the first fork on; on systems that hand over memory files."""
    if State.forked or State.listener is not None or not hasattr(os, "memfd_create"):
        return
    State.address = f"\0torch_bridge-{os.getpid()}-{os.urandom(8).hex()}"
    State.listener = socket.socket(socket.AF_UNIX)
    State.listener.bind(State.address)
    State.listener.listen(64)
    threading.Thread(target=accept, args=(State.listener,), daemon=True, name="torch_bridge-forked").start()


def after_fork_in_child() -> None:
    """Ask from now on. OpenMP's threads do not survive a fork either: torch would wait for them for ever."""
    State.forked, State.local = True, threading.local()
    if State.listener is not None:
        State.listener.close()
        State.listener = None
    torch.set_num_threads(1)


def accept(listener: socket.socket) -> None:
    """Answer each child of the same user in a thread of its own."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user != os.getuid():
            connection.close()  # a pickle can run anything
            continue
        threading.Thread(target=answer, args=(connection,), daemon=True, name="torch_bridge-answer").start()


def answer(connection: socket.socket) -> None:
    """Call what a child asks for, until it ends."""
    with connection:
        while True:
            try:
                send(connection, *reply(*receive(connection)))
            except (EOFError, OSError):
                return


def reply(meta: bytes, memory: memoryview) -> tuple[bytes, list[memoryview]]:
    """The answer to a request, as `packed` makes it."""
    try:
        function, arguments = unpacked(meta, memory)
        return packed((True, jax.device_get(function(*arguments))))
    except BaseException as error:
        text = traceback.format_exc()
        try:
            return packed((False, (error, text)))
        except Exception:
            return packed((False, (RuntimeError(f"{type(error).__name__}: {error}"), text)))


os.register_at_fork(before=before_fork, after_in_child=after_fork_in_child)
