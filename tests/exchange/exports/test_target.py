"""Where an export goes: whole or not at all; an earlier export is replaced on request, nothing else ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sslctl.errors import MachineError, SpecError
from sslctl.exchange.exports.target import Target, sha256

ONNX = (".onnx",)


def write(out: Path, suffixes: tuple[str, ...], text: str = "1", force: bool = False, second: bool = False) -> Target:
    target = Target(out, suffixes)
    target.refuse_existing(force)
    with target.build_folder() as place:
        main = place / target.name
        if not suffixes:
            main = main / "model.safetensors"
        main.write_text(text)
        if second:
            main.with_name(main.name + ".data").write_text("much")
        home = place / target.out.name if target.folder else place
        (home / target.card).write_text("card")
        files = {path.name: sha256(path) for path in home.iterdir()}
        (home / target.report).write_text(json.dumps({"files": files}))
        target.publish(place)
    return target


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_card_and_report_beside_it_and_a_folder_within(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "net.onnx", ONNX)
    assert names(tmp_path / "deep") == ["net.README.md", "net.onnx", "net.parity.json"]
    write(tmp_path / "net.v2", ONNX)
    assert names(tmp_path / "net.v2") == ["README.md", "model.onnx", "parity.json"]
    write(tmp_path / "folder", ())
    assert names(tmp_path / "folder") == ["README.md", "model.safetensors", "parity.json"]
    assert names(tmp_path) == ["deep", "folder", "net.v2"]
    for out, suffixes, hint in [("net.pt", ONNX, "--out net.onnx"), ("net.onnx", (), "--out net/")]:
        with pytest.raises(SpecError, match="this format writes") as e:
            Target(Path(out), suffixes)
        assert e.value.hint == hint


@pytest.mark.parametrize("out", ["net.onnx", "net"])
def test_an_earlier_export_is_replaced_only_on_request_and_leaves_nothing_of_its_own(out: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("of the folder, not of the export")
    first = write(tmp_path / out, ONNX, second=True)
    with pytest.raises(SpecError, match="already exists") as e:
        write(tmp_path / out, ONNX)
    assert "--force" in e.value.hint
    write(tmp_path / out, ONNX, "2", force=True)
    assert (first.home / first.main).read_text() == "2"
    assert not list(tmp_path.rglob("*.data"))
    assert (tmp_path / "README.md").read_text() == "of the folder, not of the export"


def edited(target: Target) -> Path:
    path = target.home / target.card
    path.write_text("card, with a licence")
    return path


def another(target: Target) -> Path:
    path = target.home / ("thesis.tex" if target.folder else target.report)
    path.write_text("dear")
    return path


def nested(target: Target) -> Path:
    target.out.unlink() if target.out.is_file() else None
    (target.home / target.main).unlink(missing_ok=True)
    path = target.home / target.main
    path.mkdir()
    return path


@pytest.mark.parametrize("change", [edited, another, nested])
@pytest.mark.parametrize("out", ["net.onnx", "net"])
def test_what_is_no_export_as_it_was_written_is_never_removed(
    out: str, change: Callable[[Target], Path], tmp_path: Path
) -> None:
    path = change(write(tmp_path / out, ONNX))
    before = path.read_text() if path.is_file() else ""
    with pytest.raises(SpecError, match="already exists|was changed since"):
        write(tmp_path / out, ONNX, "2", force=True)
    assert path.exists() and (path.is_dir() or path.read_text() == before)


def test_links_files_and_lists_of_other_places_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "file").write_text("x")
    for out in ("link", "file"):
        with pytest.raises(SpecError, match="not a folder"):
            write(tmp_path / out, (), force=True)
    target = write(tmp_path / "net.onnx", ONNX)
    listed = {**target.earlier_files(), "../precious": "0", "/etc/passwd": "0"}
    (tmp_path / "precious").write_text("x")
    (tmp_path / target.report).write_text(json.dumps({"files": listed}))
    assert target.earlier_files().keys() == {"net.onnx", "net.README.md"}
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", ())
    assert (tmp_path / "precious").exists() and names(tmp_path / "empty")[0] == "README.md"


def test_an_error_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    target = write(tmp_path / "net.onnx", ONNX)
    with pytest.raises(MachineError, match="cannot write .*net.onnx: disk"), target.build_folder() as place:
        (place / target.name).write_text("half")
        raise OSError(28, "disk full")
    with pytest.raises(ZeroDivisionError), target.build_folder() as place:
        (place / target.name).write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "net.onnx").read_text() == "1"
    assert names(tmp_path) == ["net.README.md", "net.onnx", "net.parity.json"]
