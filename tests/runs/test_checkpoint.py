"""A checkpoint holds the whole state of a run, and no damaged or foreign file is taken for one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sslctl.errors import CheckpointError, DivergedError, MachineError
from sslctl.runs.checkpoint import digest, find, newest, read, read_meta, refuse_mismatch, restore, snapshot, write
from sslctl.runs.meta import Imported

from .small_run import meta, small_run


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of step 2."""
    path = tmp_path_factory.mktemp("saved") / "step-000000002.safetensors"
    write(path, *snapshot(*small_run(0), meta()))
    return path


def test_another_run_becomes_the_one_that_was_saved(saved: Path) -> None:
    method, optimizer = small_run(0)
    other, resumed = small_run(99)
    assert digest(method.state_dict()) != digest(other.state_dict())
    assert restore(saved, other, resumed).step == 2
    for (name, value), again in zip(method.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, again), name
    before, after = optimizer.state_dict()["state"], resumed.state_dict()["state"]
    assert before.keys() == after.keys() and before[0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert all(torch.equal(before[k][key], after[k][key]) for k in before for key in before[k])


def test_a_snapshot_does_not_change_as_training_goes_on() -> None:
    method, optimizer = small_run(0)
    tensors, _ = snapshot(method, optimizer, meta())
    before = digest(tensors)
    with torch.no_grad():
        for p in method.parameters():
            p.add_(1)
    assert digest(tensors) == before


def test_it_says_where_the_encoder_is(saved: Path) -> None:
    facts, tensors = read(saved)
    assert facts.encoder == "method.student.backbone." and read_meta(saved) == facts
    assert {name.split(".")[0] for name in tensors} == {"method", "optimizer"}
    assert "method.queue.keys" in tensors and "optimizer.student.head.0.weight.exp_avg" in tensors


def test_values_that_are_not_finite_are_not_saved() -> None:
    method, optimizer = small_run(0)
    with torch.no_grad():
        next(method.parameters()).view(-1)[0] = float("inf")
    with pytest.raises(DivergedError, match="step 2 is not saved: method.student.backbone"):
        snapshot(method, optimizer, meta())


def test_one_flipped_bit_is_noticed(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "flipped.safetensors"
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert read_meta(path).step == 2, "the header is as it was"
    with pytest.raises(CheckpointError, match="sha256"):
        read(path)


@pytest.mark.parametrize("length", [0, 7, 100, 2000, -1])
def test_a_file_that_was_cut_off_is_refused(saved: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        read(path)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read(path)


def test_the_digest_sees_names_types_shapes_and_values() -> None:
    x = torch.arange(6, dtype=torch.float32)
    digests = {
        digest({"a": x}),
        digest({"b": x}),
        digest({"a": x.view(2, 3)}),
        digest({"a": x.view(torch.int32)}),
        digest({"a": x + 1}),
        digest({"a": x, "empty": torch.zeros(0)}),
    }
    assert len(digests) == 6
    assert digest({"a": x, "b": x + 1}) == digest({"b": x + 1, "a": x})
    assert digest({"a": x.view(2, 3).T}) == digest({"a": x.view(2, 3).T.contiguous()})


def test_weights_of_another_method_are_refused_by_name(saved: Path, tmp_path: Path) -> None:
    facts, tensors = read(saved)
    del tensors["method.queue.pointer"]
    tensors["method.queue.keys"] = tensors["method.queue.keys"][:5]
    tensors["method.odd"] = torch.zeros(1)
    write(tmp_path / "other.safetensors", tensors, facts)
    method, optimizer = small_run(0)
    with pytest.raises(CheckpointError) as refused:
        restore(tmp_path / "other.safetensors", method, optimizer)
    assert "missing: queue.pointer" in refused.value.message and "left over: odd" in refused.value.message
    assert "queue.keys: (5, 8) in the file, (18, 8) here" in refused.value.message


def test_optimizer_state_of_an_unknown_parameter_is_refused(saved: Path, tmp_path: Path) -> None:
    facts, tensors = read(saved)
    write(tmp_path / "more.safetensors", {**tensors, "optimizer.nothing.weight.exp_avg": torch.zeros(1)}, facts)
    with pytest.raises(CheckpointError, match=r"nothing\.weight"):
        restore(tmp_path / "more.safetensors", *small_run(0))


def test_a_long_list_of_differences_is_cut() -> None:
    own = {f"layer{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(CheckpointError, match=r"layer4\n… and 4 more"):
        refuse_mismatch("file", own, {})
    refuse_mismatch("file", own, own)


def at_step(saved: Path, folder: Path, name: str, step: int) -> Path:
    facts, tensors = read(saved)
    write(folder / name, tensors, facts.but(step=step))
    return folder / name


def test_the_newest_is_the_one_of_the_highest_step_that_reads_well(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    at_step(saved, folder, "z.safetensors", 3)
    best = at_step(saved, folder, "a.safetensors", 7)
    assert newest(folder) == best and find(tmp_path / "run") == best and find(folder) == best and find(best) == best
    damaged = at_step(saved, folder, "m.safetensors", 9)
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    (folder / "torn.safetensors").write_bytes(b"123")
    skipped: list[str] = []
    assert newest(folder, skipped, verify=True) == best
    assert len(skipped) == 2 and "torn.safetensors" in skipped[0] and "m.safetensors" in skipped[1]
    assert newest(folder) == damaged, "the sums of the tensors are read only where asked for"


def test_files_without_a_good_one_are_an_error_and_none_at_all_is_none(saved: Path, tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find(tmp_path)
    with pytest.raises(CheckpointError, match="no such file"):
        find(tmp_path / "nowhere")
    (tmp_path / "torn.safetensors").write_bytes(b"123")
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match=r"(?s)foreign\.safetensors.*torn\.safetensors"):
        newest(tmp_path)


def test_an_imported_encoder_is_not_resumed(saved: Path, tmp_path: Path) -> None:
    facts, tensors = read(saved)
    write(tmp_path / "imported.safetensors", tensors, facts.but(imported=Imported(layout="timm")))
    with pytest.raises(CheckpointError, match="imported encoder"):
        restore(tmp_path / "imported.safetensors", *small_run(0))


def test_a_disk_that_refuses_leaves_the_old_file(saved: Path, tmp_path: Path) -> None:
    facts, tensors = read(saved)
    path = shutil.copy(saved, tmp_path / "kept.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(MachineError, match="cannot write"):
        write(tmp_path / "folder.safetensors", tensors, facts)
    assert Path(path).read_bytes() == saved.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.safetensors", "kept.safetensors"]
