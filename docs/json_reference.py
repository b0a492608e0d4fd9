"""Write docs/json.md, the reference of what ``--json`` prints, from the result models."""

from __future__ import annotations

import inspect
import re
import sys
import typing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sslctl.tasks import results
from sslctl.tasks.results import Part, Result

PRINTED = {
    "PretrainedRun": "pretrain",
    "Plan": "pretrain --dry-run",
    "Preview": "pretrain --preview",
    "MethodList": "methods",
    "MethodDetails": "methods NAME",
    "ClassScore": "knn, linear-eval, finetune",
    "TargetsScore": "linear-eval, finetune with --targets",
    "Comparison": "compare",
    "Embeddings": "embed",
    "Ranking": "rank",
    "Bench": "bench",
    "BatchSearch": "bench --find-batch",
    "Report": "report",
    "AttentionMaps": "attn-map",
    "PatchColours": "pca",
    "Neighbours": "neighbours",
    "Projection": "projection",
    "Export": "export",
    "Import": "import",
    "Inspection": "inspect",
    "DataInfo": "data info",
    "DataPack": "data pack",
}
HEAD = """# What --json prints

Generated from the result models by `python docs/json_reference.py`.

Every command prints one JSON object on stdout, which is `result.model_dump_json()` of the same function in Python
([python.md](python.md)). It has `schema` (1: the version of these keys) and `sslctl` (the program's version) besides
what is listed here. *optional*: the key is missing where it was not asked for or does not apply. Shares such as `top1`
are in [0, 1], intervals are pairs of 95 %. An error prints `{"error": {"code", "message", "hint"}}`; codes are the exit
codes of the [README](../README.md)."""


def name_of(kind: object) -> str:
    """A type in words of JSON, models as links."""
    text = re.sub(r"typing\.|sslctl\.tasks\.results\.|<class '([^']+)'>", r"\1", str(kind)).replace("NoneType", "null")
    words = {"None": "null", "str": "string", "bool": "boolean", "dict": "object"}
    text = re.sub(r"\b(None|str|bool|dict)\b", lambda m: words[m[1]], text).replace("|", "or")
    return re.sub(r"\b([A-Z]\w+)\b", lambda m: f"[{m[1]}](#{m[1].lower()})" if m[1] in MODELS else m[1], text)


def section(model: type[Part]) -> str:
    command = PRINTED.get(model.__name__)
    lines = [f"## {model.__name__}", ""] + ([f"`sslctl {command}`", ""] if command else [])
    if doc := inspect.cleandoc(model.__doc__ or "") if "__doc__" in vars(model) else "":
        lines += [doc.replace("``", "`"), ""]
    hints = typing.get_type_hints(model)
    lines += ["| key | type | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        says = [
            field.description.replace("``", "`") if field.description else "",
            "" if field.is_required() else "*optional*",
        ]
        kind = hints[name]
        if not field.is_required() and type(None) in typing.get_args(kind):
            kind = typing.Union[tuple(k for k in typing.get_args(kind) if k is not type(None))]  # noqa: UP007
        lines.append(f"| `{field.alias or name}` | {name_of(kind)} | {'; '.join(filter(None, says))} |")
    if model.model_config.get("extra") == "allow":
        lines += ["", "and further keys."]
    return "\n".join(lines)


MODELS = {
    name: model
    for name, model in vars(results).items()
    if inspect.isclass(model) and issubclass(model, Part) and model not in (Part, Result) and name != "Scored"
}

if __name__ == "__main__":
    assert set(PRINTED) == {name for name, model in MODELS.items() if issubclass(model, Result)}
    order = [*PRINTED, *(name for name in MODELS if name not in PRINTED)]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("json.md")
    target.write_text("\n\n".join([HEAD, *(section(MODELS[name]) for name in order)]) + "\n", "utf-8")
