"""Pictures: the same features from files and arrays, limits before decoding, InvalidInput for bad ones."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core import pictures
from core.errors import ConfigError, InvalidInput
from core.features import image
from core.kinds import feature_kind
from core.schema import MAX_PROBLEMS, Batch, Column
from tests.core.carried import dense, reloaded

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


def saved(pixels: Any, form: str = "PNG", mode: str | None = None) -> bytes:
    sink = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(sink, form)
    return sink.getvalue()


def columns(**options: Any) -> list[Column]:
    return [Column("photo", "image", options)]


def batch(entries: Any) -> Batch:
    return Batch(len(entries), {"photo": list(entries)})


def claiming(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims to be of any size."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def reference_hog(picture: Any, cell: int) -> list[float]:
    """Dalal & Triggs 2005, one pixel at a time: 9 orientations, blocks of 2 x 2 cells, L2-Hys."""
    grey = picture.astype(float) / 255
    gy, gx = np.gradient(grey)
    rows, cols = grey.shape[0] // cell, grey.shape[1] // cell
    cells = np.zeros((rows, cols, 9))
    for y in range(rows * cell):
        for x in range(cols * cell):
            angle = np.degrees(np.arctan2(gy[y, x], gx[y, x])) % 180 / 20
            low, strength = int(angle), float(np.hypot(gx[y, x], gy[y, x]))
            cells[y // cell, x // cell, low % 9] += strength * (1 - (angle - low))
            cells[y // cell, x // cell, (low + 1) % 9] += strength * (angle - low)
    found: list[float] = []
    for r in range(rows - 1):
        for c in range(cols - 1):
            block = np.concatenate([cells[r, c], cells[r, c + 1], cells[r + 1, c], cells[r + 1, c + 1]])
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
            found += (block / np.sqrt((block**2).sum() + 1e-10)).tolist()
    return found


@pytest.mark.parametrize(("side", "cell"), [(28, 7), (32, 8), (16, 4), (8, 4)])
def test_gradients_are_those_of_a_plain_implementation(side: int, cell: int) -> None:
    grey = RNG.integers(0, 256, (3, side, side), dtype=np.uint8)
    found = pictures.hog(grey)
    assert found.shape == (3, pictures.hog_width(side, side))
    for picture, row in zip(grey, found, strict=True):
        assert np.allclose(row, reference_hog(picture, cell), atol=1e-5)


def test_gradients_of_a_picture_too_small_for_a_block_are_nothing() -> None:
    assert pictures.hog_width(3, 40) == 0
    assert pictures.hog(np.zeros((2, 3, 40), np.uint8)).shape == (2, 0)


@pytest.mark.parametrize("options", [{}, {"hog": False}, {"grey": False, "histogram": 8}, {"size": [20, 24]}])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_files_and_arrays_rows_and_batches_give_the_same_features(pixels: Any, options: dict[str, Any]) -> None:
    fitted = image.fit(columns(**options), batch(pixels))
    block = reloaded("image", columns(**options), fitted)
    x = block.matrix(batch(pixels))
    assert x.shape == (6, block.width)
    assert len(block.names()) == block.width
    assert np.array_equal(block.matrix(batch([saved(p) for p in pixels])), x)
    assert np.array_equal(fitted.matrix(batch(pixels)), x)
    for index, picture in enumerate(pixels):
        assert np.allclose(dense(block, {"photo": saved(picture)}), x[index], atol=1e-9)


def test_features_are_standardised_and_constant_ones_stay_finite() -> None:
    pixels = GREY.copy()
    pixels[:, 0, 0] = 9
    x = image.fit(columns(hog=False), batch(pixels)).matrix(batch(pixels))
    assert np.allclose(x.mean(axis=0), 0, atol=1e-12)
    assert np.allclose(x.std(axis=0)[1:], 1)
    assert np.allclose(x[:, 0], 0, atol=1e-12)


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    block = image.ImageBlock("photo", {"size": [28, 28], "hog": False}, lambda: (0.0, 1.0))
    assert np.array_equal(block.matrix(batch(GREY)), GREY.reshape(6, -1) / 255.0)


def test_another_size_keeps_its_proportions_on_black() -> None:
    wide = np.full((10, 40), 200, np.uint8)
    fitted = pictures.fitted(wide, 20, 20)
    assert fitted.shape == (20, 20)
    assert np.all(fitted[7:12] == 200)
    assert fitted[:7].max() == 0
    assert fitted[12:].max() == 0


def test_the_size_is_that_of_the_training_pictures_if_they_share_a_small_one() -> None:
    assert image.fit(columns(), batch(GREY)).options["size"] == [28, 28]
    assert image.fit(columns(), batch([saved(p) for p in GREY])).options["size"] == [28, 28]
    assert image.fit(columns(), batch([GREY[0], COLOUR[0]])).options["size"] == [32, 32]
    assert image.fit(columns(), batch([np.zeros((90, 90), np.uint8)])).options["size"] == [32, 32]


def test_brightness_is_that_of_pillow() -> None:
    expected = [np.asarray(Image.fromarray(p).convert("L")) for p in COLOUR]
    assert np.array_equal(pictures.luma(COLOUR), expected)


def test_the_colour_histogram_counts_shares_of_pixels() -> None:
    found = pictures.histogram(COLOUR, 4).reshape(6, 3, 4)
    for channel in range(3):
        expected, _ = np.histogram(COLOUR[0, ..., channel], bins=4, range=(0, 256))
        assert np.allclose(found[0, channel], expected / 1024)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_every_mode_of_a_png_is_read(mode: str) -> None:
    pixels = pictures.pixels(saved(COLOUR[0], mode=mode))
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == (32, 32)


def test_sixteen_bits_a_pixel_become_eight_and_cmyk_becomes_colours() -> None:
    deep = (GREY[0].astype(np.uint16) << 8) | 7
    assert np.array_equal(pictures.pixels(saved(deep)), GREY[0])
    assert pictures.pixels(saved(COLOUR[0], "JPEG", "CMYK")).shape == (32, 32, 3)


def test_transparent_pixels_count_as_black() -> None:
    clear = np.dstack([COLOUR[0], np.zeros((32, 32), np.uint8)])
    assert pictures.pixels(saved(clear)).max() == 0


GOOD = saved(GREY[0])
BAD: list[tuple[Any, str]] = [
    (b"", "PNG or JPEG"),
    (b"GIF89a" + bytes(40), "PNG or JPEG"),
    (GOOD[: len(GOOD) // 2], "can be decoded"),
    (GOOD[:40] + bytes(40) + GOOD[80:], "PNG or JPEG"),
    (saved(COLOUR[0], "JPEG")[:800], "can be decoded"),
    (saved(GREY[0], "GIF"), "PNG or JPEG"),
    (saved(GREY[0], "BMP"), "PNG or JPEG"),
    (claiming(4001, 4000), "at most 16000000 pixels"),
    (claiming(12000, 12000), "pixels"),
    (claiming(60000, 60000), "pixels"),
    (np.zeros((0, 5), np.uint8), "at least one pixel"),
    (np.zeros((5, 5), np.float64), "array of bytes"),
    (np.zeros((5, 5, 4), np.uint8), "array of bytes"),
    (np.broadcast_to(np.uint8(0), (4001, 4000)), "at most 16000000 pixels"),
]


@pytest.mark.parametrize(("entry", "why"), BAD, ids=lambda value: str(value)[:30])
def test_a_bad_picture_is_an_invalid_cell_that_says_why(entry: Any, why: str) -> None:
    block = image.ImageBlock("photo", {"size": [28, 28]}, lambda: (0.0, 1.0))
    with pytest.raises(InvalidInput) as caught:
        block.matrix(batch([GREY[0], entry]))
    (problem,) = caught.value.problems
    assert why in problem.message
    assert (problem.field, problem.row) == ("photo", 1)
    with pytest.raises(InvalidInput) as caught:
        block.row({"photo": entry})
    assert caught.value.problems[0].row is None


def test_any_cut_or_flipped_file_is_read_or_refused_and_never_a_traceback() -> None:
    for form in ("PNG", "JPEG"):
        whole = saved(COLOUR[0], form)
        for trial in range(150):
            damaged = bytearray(whole[: RNG.integers(1, len(whole))] if trial % 2 else whole)
            for at in RNG.integers(0, len(damaged), 3):
                damaged[at] ^= int(RNG.integers(1, 256))
            with contextlib.suppress(pictures.Unreadable):
                assert pictures.pixels(bytes(damaged)).dtype == np.uint8


def test_only_the_first_problems_are_listed() -> None:
    block = image.ImageBlock("photo", {"size": [28, 28]}, lambda: (0.0, 1.0))
    with pytest.raises(InvalidInput) as caught:
        block.matrix(batch([b"no"] * 30))
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_options_that_leave_nothing_or_mean_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        image.fit(columns(pixels=False, hog=False), batch(GREY))
    with pytest.raises(ConfigError, match="unknown option wings"):
        image.fit(columns(wings=2), batch(GREY))


def test_the_block_asks_for_the_matrix_and_has_no_reference() -> None:
    block = image.fit(columns(), batch(GREY))
    with pytest.raises(NotImplementedError):
        block.fuse(lambda index: (0.0,), 1)({"photo": GREY[0]})
    assert feature_kind("image").reference(block) is None
    assert block.matrix(batch([])).shape == (0, block.width)
    assert block.floats({"photo": GREY[0]}) == pytest.approx(block.matrix(batch(GREY[:1]))[0].tolist())


def test_a_bomb_costs_no_memory() -> None:
    code = (
        "import resource\n"
        "import numpy as np, PIL.Image, PIL.PngImagePlugin, PIL.JpegImagePlugin\n"
        "from core import pictures\n"
        "from tests.core.test_image import claiming\n"
        "bombs = [claiming(side, side, bytes(100_000_000)) for side in (10000, 30000)]\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (96 << 20),) * 2)\n"
        "for data in bombs:\n"
        "    try:\n"
        "        pictures.pixels(data)\n"
        "    except pictures.Unreadable as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("must have at most 16000000 pixels") == 2, done.stderr


def test_pillow_is_not_loaded_for_arrays_of_the_right_size() -> None:
    code = (
        "import sys, numpy as np; from core.features import image; from core.schema import Batch\n"
        "block = image.ImageBlock('p', {'size': [28, 28]}, lambda: (0.0, 1.0))\n"
        "block.matrix(Batch(1, {'p': [np.zeros((28, 28), np.uint8)]}))\n"
        "print('PIL' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
