"""Pipelines as they are typed: a file of JSON or YAML, or an expression. Nothing of them is ever run as code."""

import argparse
import ast
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from medjax import keys
from medjax.config import NAME, from_config
from medjax.distributions import DISTRIBUTIONS
from medjax.errors import near, needs_extra
from medjax.transforms.compose import Compose
from medjax.transforms.program import is_random
from medjax.transforms.transform import REGISTRY, Transform
from medjax.typing import Key

HELP = (
    "a file of JSON or YAML, as medjax.to_config has it, or an expression of transforms and literals, "
    'as "ToCanonical(), Resample(1.0), RandomNoise(std=(0, 0.1))"'
)
SIGNS = {ast.USub: -1, ast.UAdd: 1}


def add_pipeline(command: argparse.ArgumentParser) -> None:
    """Let a command take a pipeline and a seed."""
    command.add_argument("pipeline", help=HELP)
    add_seed(command)


def add_seed(command: argparse.ArgumentParser) -> None:
    """Let a command take a seed."""
    command.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")


def key_for(pipeline: Transform | None, seed: int) -> Key | None:
    """The key of a seed, for a pipeline that needs one."""
    return keys.of_seed(seed) if pipeline is not None and is_random(pipeline) else None


def pipeline_of(text: str) -> Transform:
    """The pipeline of what was typed. Raises ValueError for what is none, OSError for a file that cannot be read."""
    path = Path(text).expanduser()
    kind = path.suffix.lower()
    if kind in (".json", ".yaml", ".yml"):
        try:
            config = json.loads(path.read_text()) if kind == ".json" else parsed_yaml(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    else:
        config = parsed(text)
    return from_config({NAME: Compose.__name__, "transforms": config} if isinstance(config, list) else config)


def parsed_yaml(text: str) -> Any:
    """What YAML holds, plain data alone."""
    try:
        import yaml
    except ImportError:
        needs_extra("PyYAML", "cli", "a pipeline in YAML")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def parsed(text: str) -> Any:
    """The configuration that an expression stands for; it is read, never evaluated."""
    try:
        return config_of(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"pipeline={text[:80]!r} is neither a file .json, .yaml or .yml nor an expression: {error}"
        ) from None


def config_of(node: ast.expr) -> Any:
    """A part of an expression as a configuration holds it."""
    match node:
        case ast.Call():
            return call_of(node)
        case ast.List() | ast.Tuple():
            return [config_of(entry) for entry in node.elts]
        case ast.Dict() if None not in node.keys:
            pairs = [[config_of(k), config_of(v)] for k, v in zip(node.keys, node.values, strict=True) if k]
            return dict(pairs) if all(isinstance(key, str) for key, _ in pairs) else pairs
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant(value=int() | float() as number)):
            return SIGNS[type(node.op)] * number
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
    raise ValueError(
        f"an expression holds transforms, numbers, texts, True, False, None, tuples, lists and dictionaries; "
        f"{ast.unparse(node)[:80]!r} is none of them"
    )


def call_of(node: ast.Call) -> dict[str, Any]:
    """A transform, or a distribution, as a configuration holds it: arguments in order get their names."""
    known = {**REGISTRY, **DISTRIBUTIONS}
    match node.func:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="mj" | "medjax"), attr=name):
            pass
        case _:
            name = ast.unparse(node.func)[:80]
    if name not in known:
        raise ValueError(f"there is no transform {name!r}.{near(name, known)}")
    in_order = [f.name for f in fields(known[name]) if f.init and not f.kw_only]
    if len(node.args) > len(in_order):
        raise ValueError(
            f"{name} takes {len(in_order)} arguments in order, {', '.join(in_order)}; got {len(node.args)}"
        )
    arguments = dict(zip(in_order, node.args, strict=False))
    for keyword in node.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            raise ValueError(f"{name} takes each argument once and by its name: {ast.unparse(node)[:80]!r}")
        arguments[keyword.arg] = keyword.value
    return {NAME: name, **{argument: config_of(value) for argument, value in arguments.items()}}
