"""A forked child never runs JAX, which does not survive a fork: it asks the process that it was forked from.

Before the first fork that process opens a door, a pair of sockets without a name, and a thread that answers. Who was
forked from it has inherited the door, and nobody else can reach it: a child makes a connection, hands one end of it
through the door, sends a function and its arguments and waits; arrays lie in a memory file that is handed over, one
copy here and none there. The process's own JAX, its compiled programs and its GPU answer, so nothing is started and
nothing is to be ended: when the child ends, the connection does. A child of a child asks the first process.
"""

import io
import mmap
import os
import pickle
import select
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
    """What this process knows: the ends of the door where it asks and answers, and whether it is a forked child.

    A fork waits for `moment`, which is held where descriptors are made that no child may inherit: a child that has an
    end of another's connection would keep it open when the process that answers has ended.
    """

    door: socket.socket | None = None
    inside: socket.socket | None = None
    answering: set[socket.socket] = set()  # noqa: RUF012
    forked = False
    local = threading.local()
    moment = threading.RLock()


def in_child() -> bool:
    """Whether this process was forked from one that had the bridge."""
    return State.forked


def run(function: Callable[..., Any], *arguments: Any) -> Any:
    """function(*arguments), here or, in a forked child, in the process that it was forked from.

    The function must be found by module and name, and the arguments must pickle. What it raises is raised here.
    """
    return ask(function, arguments) if State.forked else function(*arguments)


def ask(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The answer of the process that this one was forked from.

    A connection is kept for the next question only when the answer to this one has come: whatever interrupts the call
    (an alarm, Ctrl-C) leaves none behind on which that answer could still arrive.
    """
    message = packed((function, arguments))  # what does not pickle raises here, before anything is sent
    connection, number = State.local.__dict__.pop("connection", None) or (connect(), 0)
    try:
        send(connection, number, *message)
        answered_number, *received = receive(connection)
        if answered_number != number:
            raise RuntimeError(f"question {number} got the answer to question {answered_number}")
    except (EOFError, OSError) as error:
        connection.close()
        if isinstance(error, TimeoutError | InterruptedError):  # raised by a handler of the user's, or by the system
            raise
        raise RuntimeError(ENDED) from None
    except BaseException:
        connection.close()
        raise
    State.local.connection = connection, number + 1
    answered, value = unpacked(*received)
    if answered:
        return value
    error, text = value
    error.add_note(f"In the process that runs JAX for forked children:\n{text}")
    raise error


def connect() -> socket.socket:
    """A connection to the process that answers: one end of a new pair, whose other end goes through the door."""
    with State.moment:
        connection, other = socket.socketpair()
        with other:
            try:
                if State.door is None:
                    raise FileNotFoundError("there was no door when this process was forked")
                socket.send_fds(State.door, [b"\0"], [other.fileno()])
            except OSError:
                connection.close()
                raise RuntimeError(ENDED) from None
    return connection


def packed(value: Any) -> tuple[bytes, list[memoryview]]:
    """A pickle of a value, and the arrays in it beside it."""
    buffers: list[memoryview] = []
    head = pickle.dumps(value, 5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
    return pickle.dumps((head, [buffer.nbytes for buffer in buffers])), buffers


HEAD = struct.Struct("QQ")


def send(connection: socket.socket, number: int, meta: bytes, buffers: list[memoryview]) -> None:
    """Send what `packed` made: a number and its length with the memory file that holds the arrays, then the rest."""
    size = max(1, sum(rounded(buffer.nbytes) for buffer in buffers))
    with open(os.memfd_create("torch_bridge", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as memory:
            place = 0
            for buffer in buffers:
                memory[place : place + buffer.nbytes] = buffer
                place += rounded(buffer.nbytes)
        socket.send_fds(connection, [HEAD.pack(number, len(meta))], [file.fileno()])
    connection.sendall(meta)


def receive(connection: socket.socket) -> tuple[int, bytes, memoryview]:
    """The number of what the other side sent, it, still packed, and the memory file. Raises EOFError if it has gone."""
    files: list[int] = []
    try:  # from here on: an interrupt after it would leave the file open
        head, files, _, _ = socket.recv_fds(connection, HEAD.size, 1)
        if len(head) < HEAD.size or not files:
            raise EOFError("the other side has closed the connection")
        memory = memoryview(mmap.mmap(files[0], os.fstat(files[0]).st_size))
    finally:
        for file in files:
            os.close(file)
    number, remaining = HEAD.unpack(head)
    parts = []
    while remaining:
        part = connection.recv(min(remaining, 1 << 20))
        if not part:
            raise EOFError("the other side has closed the connection")
        parts.append(part)
        remaining -= len(part)
    return number, b"".join(parts), memory


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
    State.moment.acquire()
    if State.forked or State.inside is not None or not hasattr(os, "memfd_create"):
        return
    State.door, State.inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    threading.Thread(target=admit, args=(State.inside,), daemon=True, name="torch_bridge-forked").start()


def after_fork_in_parent() -> None:
    """Go on making descriptors."""
    State.moment.release()


def after_fork_in_child() -> None:
    """Ask from now on. OpenMP's threads do not survive a fork either: torch would wait for them for ever."""
    State.forked, State.local, State.moment = True, threading.local(), threading.RLock()
    for inherited in (State.inside, *State.answering):
        if inherited is not None:
            inherited.close()
    State.inside, State.answering = None, set()
    torch.set_num_threads(1)


def admit(inside: socket.socket) -> None:
    """Answer each connection that comes through the door, in a thread of its own."""
    while True:
        select.select([inside], [], [])
        with State.moment:
            _, files, _, _ = socket.recv_fds(inside, 1, 1)
            if not files:
                continue
            connection = socket.socket(fileno=files[0])
            State.answering.add(connection)
        try:
            threading.Thread(target=answer, args=(connection,), daemon=True, name="torch_bridge-answer").start()
        except RuntimeError:  # no thread is left: its child is told by the end of its connection, others are answered
            forget(connection)


def answer(connection: socket.socket) -> None:
    """Call what a child asks for, until it ends."""
    try:
        while True:
            number, *question = receive(connection)
            message = reply(*question)
            del question
            send(connection, number, *message)
            del message
    except (EOFError, OSError):
        return
    finally:
        forget(connection)


def forget(connection: socket.socket) -> None:
    """Close a connection that is not to be answered any more."""
    with State.moment:
        State.answering.discard(connection)
        connection.close()


def reply(meta: bytes, memory: memoryview) -> tuple[bytes, list[memoryview]]:
    """The answer to a request, as `packed` makes it."""
    try:
        function, arguments = unpacked(meta, memory)
        return packed((True, jax.device_get(function(*arguments))))
    except BaseException as error:
        text = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))  # some exceptions pickle, and cannot be made again
            return packed((False, (error, text)))
        except Exception:
            return packed((False, (RuntimeError(f"{type(error).__name__}: {error}"), text)))


os.register_at_fork(before=before_fork, after_in_parent=after_fork_in_parent, after_in_child=after_fork_in_child)
