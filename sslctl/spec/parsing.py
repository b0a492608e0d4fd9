"""How a spec is read and put together: YAML without its traps, --set words, layers, every error at once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import SpecError, closest
from .schema import Data, Spec

MAX_BYTES = 1 << 17
MAX_DEPTH = 20
MAX_DIGITS = 400
MAX_LINES = 20  # of an error
PLAIN = "a spec is plain YAML: sections of key: value"


def _refused(problem: str, place: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


class PlainLoader(yaml.SafeLoader):
    """A YAML loader without YAML's traps: duplicate keys, aliases and tags are errors, 1e-3 is a number."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        self.depth += 1
        if isinstance(event, yaml.AliasEvent):
            raise _refused("aliases are not allowed", event)
        if getattr(event, "tag", None) is not None:
            raise _refused(f"tags such as {event.tag} are not allowed", event)
        if self.depth > MAX_DEPTH:
            raise _refused(f"deeper than {MAX_DEPTH} levels", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _refused(f"key {_shown(key)} is not a word", key_node)
            if key in seen:
                raise _refused(f"key {_shown(key)} stands twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads `no` as false, `1e-3` as a word, `010` as 8 and `12:30` as 750; 1.2's core schema does none of that.
PlainLoader.yaml_implicit_resolvers = {}
_RESOLVERS = [
    ("tag:yaml.org,2002:null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("tag:yaml.org,2002:float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
]
for _tag, _pattern, _first in _RESOLVERS:
    PlainLoader.add_implicit_resolver(_tag, re.compile(f"{_pattern}\\Z"), _first)


def _number(loader: PlainLoader, node: yaml.ScalarNode) -> int | float:
    kind = int if node.tag.endswith(":int") else float
    value = kind(node.value) if len(node.value) <= MAX_DIGITS else math.inf
    if kind is float and not math.isfinite(value) or value == math.inf:
        raise _refused(f"{node.value[:20]} is too large a number", node)
    return value


PlainLoader.add_constructor("tag:yaml.org,2002:int", _number)
PlainLoader.add_constructor("tag:yaml.org,2002:float", _number)


def parse_yaml(text: str, where: str) -> Any:
    """Return the plain value in ``text``. Raises SpecError with line and column where it is not YAML."""
    if len(text) > MAX_BYTES:
        raise _too_long(where)
    try:
        return yaml.load(text, PlainLoader)  # a SafeLoader
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise SpecError(f"{where}{place}: {e.problem or e.context}", PLAIN) from e
    except yaml.reader.ReaderError as e:
        raise SpecError(f"{where}: holds the character {ascii(chr(int(e.character)))} at {e.position}", PLAIN) from e


def read_spec_file(path: Path) -> Data:
    """Return the sections in the file. Raises SpecError where it cannot be read or holds none."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise _too_long(f"--spec {path}")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "not UTF-8 text"
        raise SpecError(f"--spec {path}: {reason}", "give the path of a YAML file, such as a run's spec.yaml") from e
    data = parse_yaml(text, f"--spec {path}")
    if not isinstance(data, dict):
        raise SpecError(
            f"--spec {path}: holds no sections", "write for example:\ndata: {path: photos}\nmethod: {name: swav}"
        )
    return {key: value for key, value in data.items() if value is not None}  # a section whose keys are all comments


def _too_long(where: str) -> SpecError:
    return SpecError(f"{where}: too long for a spec, which has at most {MAX_BYTES >> 10} KiB", PLAIN)


def parse_set(word: str) -> Data:
    """Return ``a.b=c`` as nested mappings, with ``c`` read as YAML."""
    path, equals, value = word.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise SpecError(f"--set {_shown(word)}: not of the form section.key=value", "for example --set optim.lr=3e-4")
    data: Any = parse_yaml(value, f"--set {path}")
    for key in reversed(keys):
        data = {key: data}
    return dict(data)


def merge(*layers: Mapping[str, Any]) -> Data:
    """Merge mappings key by key, down through nested ones; later layers win."""
    result: Data = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def problems(model: type[BaseModel], data: Data, prefix: str = "") -> list[str]:
    """Return every reason why ``data`` is not a ``model``, a line each, with dotted paths and suggestions."""
    try:
        model.model_validate_json(_as_json(data), strict=True)
    except ValidationError as e:
        return [_line(model, error, prefix) for error in e.errors(include_url=False)]
    return []


def check(model: type[BaseModel], data: Data, prefix: str = "") -> BaseModel:
    """Return ``data`` as a ``model``. Raises SpecError with every problem."""
    if errors := problems(model, data, prefix):
        raise refuse(errors)
    return model.model_validate_json(_as_json(data), strict=True)


def refuse(errors: list[str]) -> SpecError:
    more = [f"and {len(errors) - MAX_LINES} more"] if len(errors) > MAX_LINES else []
    return SpecError(
        "\n".join(errors[:MAX_LINES] + more), "see `sslctl pretrain --help`, or a run's spec.yaml for every key"
    )


def check_spec(data: Data) -> Spec:
    spec = check(Spec, data)
    assert isinstance(spec, Spec)
    return spec


def _as_json(data: Data) -> bytes:
    """Return ``data`` as JSON, which pydantic checks more strictly than Python values: true is not a number."""
    text = json.dumps(data, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError as e:
        near = ascii(text[max(0, e.start - 20) : e.end])
        raise SpecError(f"spec: the text that ends {near} is not UTF-8", "rename the file or folder") from e


FLAGS = {"data.path": "--data", "method.name": "--method", "data": "--data", "method": "--method"}
"""Options of the keys without a default."""

# The errors of pydantic in our words; {} are the values that it names.
_REASONS = {
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_type": "is neither true nor false",
    "string_type": "is not text; put it in quotes",
    "model_type": "is not a section, which has keys",
    "dict_type": "is not a section, which has keys",
    "tuple_type": "is not a list",
    "too_long": "has more than {max_length} values",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
}


def _line(model: type[BaseModel], error: Any, prefix: str) -> str:
    path = [str(part) for part in error["loc"]]
    dotted = ".".join([prefix, *path] if prefix else path) or "spec"
    value, kind, reason = error.get("input"), error["type"], str(error["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        known = list(_fields(model, path[:-1]))
        return f"{dotted}: no such key" + (closest(path[-1], known) or f"; known: {', '.join(known)}")
    if kind == "missing":
        return f"{dotted}: missing" + (f" `{FLAGS[dotted]}`" if dotted in FLAGS else "")
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", reason)
        return f"{dotted}: {_shown(value)} is not one of {', '.join(words)}{closest(str(value), words)}"
    if kind in _REASONS:
        limits = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in error.get("ctx", {}).items()}
        return f"{dotted}: {_shown(value)} {_REASONS[kind].format(**limits)}"
    return f"{dotted}: {reason}" if isinstance(value, dict | list) else f"{dotted}: {_shown(value)} — {reason}"


def _shown(value: Any) -> str:
    """Return ``value`` as a person would write it, shortened where it is long."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…" + text[-1]


def _fields(model: type[BaseModel], path: list[str]) -> Iterator[str]:
    """Yield the keys allowed at ``path`` within ``model``."""
    for part in path:
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return
        model = field.annotation
    yield from (f.alias or name for name, f in model.model_fields.items())
