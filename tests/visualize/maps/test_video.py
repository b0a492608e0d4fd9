"""Films and animations in and out, with ffmpeg and without; one frame in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from sslctl.backbones import Backbone, build_backbone
from sslctl.errors import DataError, MachineError
from sslctl.spec.schema import BackboneSpec
from sslctl.visualize.maps import video
from sslctl.visualize.maps.attention import MapOptions, attention_maps
from sslctl.visualize.maps.video import ffmpeg, is_video, open_frames, write_film, write_video
from sslctl.visualize.paint import blend, colour

LOOK = MapOptions("attention", 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture(scope="module")
def vit() -> Backbone:
    torch.manual_seed(0)
    args = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return build_backbone(BackboneSpec(arch="vit_tiny_patch16_224", args=args), 32).eval()


def smooth(n: int, height: int = 24, width: int = 40) -> list[NDArray[np.uint8]]:
    """Frames that a film keeps nearly as they are."""
    y, x = np.mgrid[:height, :width]
    return [np.stack([4 * x + 10 * i, 5 * y, 100 + 0 * x], -1).clip(0, 255).astype(np.uint8) for i in range(n)]


def animation(path: Path, frames: list[NDArray[np.uint8]]) -> Path:
    first, *rest = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=rest, duration=50, lossless=True)
    return path


def test_an_animation_is_read_frame_by_frame(tmp_path: Path) -> None:
    frames = smooth(4)
    path = animation(tmp_path / "a.webp", frames)
    assert is_video(path)
    rate, found = open_frames(path)
    assert isinstance(found, Iterator) and rate == 20
    for expected, frame in zip(frames, found, strict=True):
        assert np.array_equal(frame, expected)
    Image.fromarray(frames[0]).save(tmp_path / "still.webp")
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    assert not is_video(tmp_path / "still.webp") and not is_video(tmp_path / "broken.gif")
    assert not is_video(tmp_path / "nowhere.mp4")


def test_a_film_comes_back_as_it_was_written(tmp_path: Path) -> None:
    frames = smooth(7, 24, 41)  # an odd width is padded
    path = write_film(iter(frames), tmp_path / "-i.mp4", 12.5)  # a name that looks like an option
    rate, found = open_frames(path)
    assert rate == 12.5
    pictures = list(found)
    assert len(pictures) == 7 and pictures[0].shape == (24, 42, 3)
    for expected, picture in zip(frames, pictures, strict=True):
        assert np.abs(picture[:, :41].astype(int) - expected).mean() < 6  # what the film's colours lose
    with pytest.raises(DataError, match="no frames"):
        write_film(iter(()), tmp_path / "none.mp4", 10)
    assert not (tmp_path / "none.mp4").exists()


def test_a_failure_in_the_middle_leaves_no_film(tmp_path: Path) -> None:
    def frames() -> Iterator[NDArray[np.uint8]]:
        yield from smooth(2)
        raise DataError("a frame that cannot be read")

    with pytest.raises(DataError, match="cannot be read"):
        write_film(frames(), tmp_path / "half.mp4", 10)
    assert list(tmp_path.iterdir()) == []


def test_every_frame_is_painted(vit: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = smooth(3)
    path = animation(tmp_path / "a.webp", frames)
    told = write_video(vit, path, tmp_path / "film", LOOK)
    assert told["frames"] == 3 and told["files"] == [str(tmp_path / "film" / "a_attention.mp4")]
    _, found = open_frames(tmp_path / "film" / "a_attention.mp4")
    film = list(found)
    monkeypatch.setattr(video, "ffmpeg", lambda: None)  # a machine without it
    told = write_video(vit, path, tmp_path / "files", LOOK)
    assert [Path(file).name for file in told["files"]] == ["000000.png", "000001.png", "000002.png"]
    for i, frame in enumerate(frames):
        maps = attention_maps(vit, frame, LOOK)
        mean = colour(maps.mean.numpy())
        expected = np.concatenate([maps.image, mean, blend(maps.image, mean)], 1)
        with Image.open(told["files"][i]) as painted:
            assert np.array_equal(np.asarray(painted), expected)
        height, width = expected.shape[:2]
        assert np.abs(film[i][:height, :width].astype(int) - expected).mean() < 16
    with pytest.raises(MachineError, match="needs ffmpeg") as e:
        open_frames(tmp_path / "film" / "a_attention.mp4")
    assert "sslctl[video]" in e.value.hint


def test_the_program_is_there_for_these_tests() -> None:
    assert ffmpeg() is not None
