"""How a spec is read and put together: YAML without its traps, --set words, layers, every error at once."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from .errors import SpecError
from .spec import Data, Spec

MAX_BYTES = 1 << 20

class _Loader(yaml.SafeLoader):
    """YAML without its traps: a key twice is an error, 1e-3 is a number, aliases are refused."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"key {key!r} is not a word", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key '{key}' stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads `no` as false, `1e-3` as a word, `010` as 8 and `12:30` as 750; 1.2's core schema does none of that.
_Loader.yaml_implicit_resolvers = {}
_RESOLVERS = [
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("tag:yaml.org,2002:float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
]


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^{_pattern}$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node)))


def parse_yaml(text: str, where: str) -> Any:
    """The plain value that ``text`` holds; SpecError with line and column where it holds none."""
    if len(text) > MAX_BYTES:
        raise SpecError(f"{where}: {len(text)} bytes are too many for a spec", f"at most {MAX_BYTES} bytes")
    try:
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SpecError(f"{where}{place}: {e.problem or e.context}", "a spec is plain YAML: sections of key: value") from e
    except (yaml.YAMLError, RecursionError, ValueError) as e:
        raise SpecError(f"{where}: not YAML ({type(e).__name__})", "a spec is plain YAML: sections of key: value") from e


def read_spec_file(path: Path) -> Data:
    """The sections in the file; SpecError where it cannot be read or is no mapping."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError(f"--spec {path}: {path.stat().st_size} bytes are too many for a spec", f"at most {MAX_BYTES} bytes")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise SpecError(f"--spec {path}: {reason}", "give the path of a YAML file, such as a run's spec.yaml") from e
    data = parse_yaml(text, f"--spec {path}")
    if not isinstance(data, dict):
        raise SpecError(f"--spec {path}: holds no sections", "write for example:\ndata: {path: photos}\nmethod: {name: swav}")
    return data


def parse_set(word: str) -> Data:
    """``a.b=c`` as nested mappings, ``c`` read as YAML."""
    path, equals, value = word.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise SpecError(f"--set '{word}': not of the form section.key=value", "for example --set optim.lr=3e-4")
    data: Any = parse_yaml(value, f"--set {path}")
    for key in reversed(keys):
        data = {key: data}
    return dict(data)


def merge(*layers: Mapping[str, Any]) -> Data:
    """Later layers win, key by key, down through the mappings."""
    result: Data = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def problems(model: type[BaseModel], data: Data, prefix: str = "") -> list[str]:
    """Every reason why ``data`` is no ``model``, one line each, with dotted paths and suggestions."""
    try:
        model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as e:
        return [_line(model, error, prefix) for error in e.errors(include_url=False)]
    return []


def check(model: type[BaseModel], data: Data, prefix: str = "") -> BaseModel:
    """``data`` as a ``model``; SpecError with every problem."""
    if found := problems(model, data, prefix):
        raise refuse(found)
    return model.model_validate_json(json.dumps(data), strict=True)


def refuse(found: list[str]) -> SpecError:
    return SpecError("\n".join(found), "see `sslctl pretrain --help`, or a run's spec.yaml for every key")


def check_spec(data: Data) -> Spec:
    spec = check(Spec, data)
    assert isinstance(spec, Spec)
    return spec


def _line(model: type[BaseModel], error: Any, prefix: str) -> str:
    path = [str(part) for part in error["loc"]]
    dotted = ".".join([prefix, *path] if prefix else path) or "spec"
    value = error.get("input")
    if error["type"] == "extra_forbidden":
        known = list(_fields(model, path[:-1]))
        near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        return f"{dotted}: no such key" + (f" — did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{dotted}: must be given"
    reason = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error":
        words = re.findall(r"'([^']*)'", reason)
        near = difflib.get_close_matches(str(value), words, n=1, cutoff=0.5)
        reason = f"one of {', '.join(words)}" + (f" — did you mean '{near[0]}'?" if near else "")
        return f"{dotted}: '{value}' is not {reason}"
    if isinstance(value, dict | list):
        return f"{dotted}: {reason}"
    return f"{dotted}: {value!r} — {reason[0].lower()}{reason[1:]}"


def _fields(model: type[BaseModel], path: list[str]) -> Iterator[str]:
    """The keys allowed at ``path`` within ``model``."""
    for part in path:
        found = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if found is None or not (isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel)):
            return
        model = found.annotation
    yield from (f.alias or name for name, f in model.model_fields.items())
