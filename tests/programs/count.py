"""What a program of XLA costs a card, read off its text: kernels that are launched, waits of the host, bytes moved."""

import re
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier", "copy-done"}
"""Operations that launch nothing."""
SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}
SIZES |= {"s64": 8, "u64": 8, "c64": 8}


class Instruction(NamedTuple):
    """A line of a computation: its name and result, what it does, what it is done to, and the rest of the line."""

    name: str
    result: str
    operation: str
    operands: list[str]
    attributes: str


class Cost(NamedTuple):
    """Kernels launched, times that the host waits for a card, bytes read and written."""

    launches: float = 0
    waits: float = 0
    bytes: float = 0

    def plus(self, other: "Cost", times: float = 1) -> "Cost":
        return Cost(*(a + times * b for a, b in zip(self, other, strict=True)))


Computations: TypeAlias = dict[str, list[Instruction]]
OfBranches: TypeAlias = Callable[[list[Cost]], Cost]


def size_of(result: str) -> int:
    """Bytes of a type, as f32[2,3] or a tuple of such."""
    total = 0
    for name, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", result):
        count = SIZES.get(name, 0)
        for n in filter(None, dimensions.split(",")):
            count *= int(n)
        total += count
    return total


def closing(text: str) -> int:
    """Where the bracket closes with which `text` begins."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return at
    raise ValueError(f"no bracket closes in {text[:80]!r}")


def parse(text: str) -> tuple[Computations, str]:
    """The computations of a program, and the name of the one that is its entry."""
    computations: Computations = {}
    current, entry = "", ""
    for line in text.splitlines():
        if head := re.match(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif found := re.match(r"^\s+(?:ROOT )?%([\w.\-]+) = (.*)$", line):
            name, rest = found.groups()
            end = closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
            result, rest = rest[:end], rest[end + 1 :]
            if operation := re.match(r"([\w\-]+)\(", rest):
                start = operation.end() - 1
                end = start + closing(rest[start:])
                operands = re.findall(r"%([\w.\-]+)", rest[start:end])
                computations[current].append(Instruction(name, result, operation[1], operands, rest[end:]))
    return computations, entry


def named(instruction: Instruction, *attributes: str) -> list[str]:
    """The computations that an instruction names under one of these attributes."""
    for attribute in attributes:
        if found := re.search(rf"{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", instruction.attributes):
            return re.findall(r"[\w.\-]+", found[1])
    return []


def moved(instruction: Instruction, types: dict[str, str], computations: Computations) -> int:
    """Bytes that a kernel reads and writes; of what it only takes a slice of or writes a slice into, the slice."""
    written = size_of(instruction.result)
    body = computations[named(instruction, "calls")[0]] if instruction.operation == "fusion" else [instruction]
    inner = {step.name: step.result for step in body}
    users = defaultdict(list)
    for step in body:
        for place, operand in enumerate(step.operands):
            users[operand].append((step, place))
    if instruction.operation == "fusion":
        read_from = [(step.name, size_of(step.result)) for step in body if step.operation == "parameter"]
    else:
        read_from = [(name, size_of(types.get(name, ""))) for name in instruction.operands]
    total = written
    for name, full in read_from:
        parts = [part_of(step, place, full, inner) for step, place in users[name]]
        total += min(full, sum(parts))
    for step in body:
        if step.operation == "dynamic-update-slice" and size_of(step.result) <= written:
            total += size_of(inner.get(step.operands[1], "")) - size_of(step.result)  # in place
    return max(total, 0)


def part_of(step: Instruction, place: int, full: int, types: dict[str, str]) -> int:
    """Bytes of an operand that a step reads."""
    if place == 0 and step.operation in ("dynamic-slice", "slice", "gather"):
        return size_of(step.result)
    if place == 0 and step.operation == "dynamic-update-slice":
        return 0
    return full


def dearest(branches: list[Cost]) -> Cost:
    """Costs at most: every coin falls on the dear side."""
    return Cost(*(max(column) for column in zip(*branches, strict=True)))


def mean(branches: list[Cost]) -> Cost:
    """Costs if every branch is as likely as the others."""
    return Cost(*(sum(column) / len(branches) for column in zip(*branches, strict=True)))


def cost_of(name: str, computations: Computations, of_branches: OfBranches, in_graph: bool = False) -> Cost:
    """What a computation costs; in a CUDA graph the card itself decides what comes next."""
    total = Cost()
    types = {step.name: step.result for step in computations[name]}
    for step in computations[name]:
        if step.operation in FREE:
            continue
        if step.operation == "while":
            count = re.search(r'known_trip_count":\{"n":"(\d+)"', step.attributes)
            body = cost_of(named(step, "body")[0], computations, of_branches, in_graph)
            if not count:  # the host asks the card after every turn; one turn is counted
                body = body.plus(cost_of(named(step, "condition")[0], computations, of_branches, in_graph)).plus(
                    Cost(0, not in_graph)
                )
            total = total.plus(body, int(count[1]) if count else 1)
        elif step.operation == "conditional":
            names = named(step, "branch_computations") or named(step, "true_computation") + named(
                step, "false_computation"
            )
            branches = [cost_of(branch, computations, of_branches, in_graph) for branch in names]
            total = total.plus(of_branches(branches)).plus(Cost(0, not in_graph))
        elif step.operation in ("call", "async-start"):
            for called in named(step, "to_apply", "calls"):
                total = total.plus(cost_of(called, computations, of_branches, in_graph or "command_buffer" in called))
        else:
            total = total.plus(Cost(1, 0, moved(step, types, computations)))
    return total


def costs(text: str, of_branches: OfBranches) -> dict[str, float]:
    """Launches, waits and bytes of the program that XLA wrote as `text`."""
    computations, entry = parse(text)
    return cost_of(entry, computations, of_branches)._asdict()
