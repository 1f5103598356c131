"""Several images in one field of view."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stixflow.errors import UsageError
from stixflow.previews import SkyImage, overlay_figure, write_animation
from stixflow.previews.animation import _colours, common_field


def shifted(image: SkyImage, x: float, **more: object) -> SkyImage:
    place = (image.reference_xy[0] + x, image.reference_xy[1])
    return replace(image, reference_xy=place, **more)  # type: ignore[arg-type]


def test_the_field_holds_every_image(image: SkyImage) -> None:
    one, both = image.field(), common_field([image, shifted(image, 50.0)])
    assert both == pytest.approx((one[0], one[1] + 50.0, one[2], one[3]))
    corners = image.sky([-0.5, 64.5, 64.5, -0.5], [-0.5, -0.5, 64.5, 64.5])
    assert one == pytest.approx((corners[0].min(), corners[0].max(), corners[1].min(), corners[1].max()))


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as file:
        count = getattr(file, "n_frames", 1)
        shown = []
        for number in range(count):
            file.seek(number)
            assert file.info["duration"] == 200
            shown.append(np.asarray(file.convert("L"), dtype=float))
    return shown


def test_every_image_is_a_frame_and_the_source_moves(image: SkyImage, tmp_path: Path) -> None:
    images = [shifted(image, x) for x in (0.0, 40.0, 80.0)]
    shown = frames(write_animation(tmp_path / "a.gif", images, milliseconds=200))
    assert len(shown) == 3
    assert len({frame.shape for frame in shown}) == 1
    changes = [np.argmax(np.median(np.sort(later - first, axis=0)[-9:], axis=0)) for first, later in pairwise(shown)]
    assert changes[0] < changes[1]


def movie_frames(path: Path) -> np.ndarray:
    """All frames of an MP4, (frame, y, x, 3), and how many a second."""
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    told = next(reader)
    assert told["fps"] == 5.0
    width, height = told["size"]
    return np.array([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_a_movie_shows_what_the_gif_shows(image: SkyImage, tmp_path: Path) -> None:
    images = [shifted(image, x) for x in (0.0, 40.0, 80.0)]
    movie = write_animation(tmp_path / "a.mp4", images, milliseconds=200)
    still = frames(write_animation(tmp_path / "a.gif", images, milliseconds=200))
    moving = movie_frames(movie).mean(axis=3)
    assert len(moving) == len(still)
    for one, other in zip(moving, still, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98
    again = write_animation(tmp_path / "b.mp4", images, milliseconds=200)
    assert movie.read_bytes() == again.read_bytes()


def test_without_ffmpeg_the_extra_is_named(image: SkyImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UsageError, match=r"stixflow\[movie\]"):
        write_animation(tmp_path / "a.mp4", [image])
    with pytest.raises(UsageError, match=r"a name ending in \.gif or \.mp4"):
        write_animation(tmp_path / "a.avi", [image])
    assert not list(tmp_path.iterdir())


def test_a_few_outlines_contrast_and_many_go_from_early_to_late() -> None:
    few, many = _colours(3), _colours(12)
    assert len(set(few)) == 3
    light = [0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue, _ in many]
    assert light == sorted(light)
    assert light[0] > 0.2


def test_a_common_scale_dims_the_faint(image: SkyImage, tmp_path: Path) -> None:
    faint = shifted(image, 0.0, data=image.data / 10)
    own = frames(write_animation(tmp_path / "own.gif", [image, faint], milliseconds=200))
    common = frames(write_animation(tmp_path / "common.gif", [image, faint], milliseconds=200, common_scale=True))
    assert common[1].sum() < own[1].sum()


def test_contours_of_all_lie_over_each_other(image: SkyImage) -> None:
    empty = shifted(image, 10.0, data=np.zeros_like(image.data), title="nothing")
    axes = overlay_figure([image, shifted(image, 40.0, title="later"), empty], levels=(0.5,)).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["clean", "later", "nothing"]
    outlines = [one for one in axes.collections if any(len(path.vertices) for path in one.get_paths())]
    middles = [np.mean(one.get_paths()[0].vertices, axis=0) for one in outlines]
    assert middles[1] - middles[0] == pytest.approx([40.0, 0.0], abs=0.5)


def test_no_image_is_refused(tmp_path: Path) -> None:
    for draw in (overlay_figure, lambda images: write_animation(tmp_path / "a.gif", images)):
        with pytest.raises(UsageError, match="no image"):
            draw([])
    assert not list(tmp_path.iterdir())
