"""What an image file says of its pixels is honoured, or the file is refused in one line."""

import struct

import numpy as np
import pytest
from PIL import Image

from nasjax.data.image_file import read_image

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
GRAY = RGB[..., 0]
ALPHA = np.dstack([RGB, GRAY])
OPAQUE = np.dstack([RGB, np.full_like(GRAY, 255)])


def pillow(pixels, suffix, mode=None, **options):
    """path -> a file written by Pillow, and its name."""

    def write(folder):
        image = Image.fromarray(pixels)
        image = image if mode is None else image.convert(mode)
        image.save(folder / f"a.{suffix}", **options)
        return folder / f"a.{suffix}"

    return write


def tiff(pixels, bits, colours, **tags):
    """The same of an uncompressed TIFF [H, W, C], little-endian; tags by number, `t339=2`."""

    def write(folder):
        body = pixels.tobytes()
        height, width, samples = (*pixels.shape, 1)[:3]
        entries = {256: width, 257: height, 258: bits, 259: 1, 262: colours, 273: 8, 277: samples, 278: height}
        entries |= {279: len(body)} | {int(name[1:]): value for name, value in tags.items()}
        directory, extra = 8 + len(body), b""
        rows, after = b"", directory + 6 + 12 * len(entries)
        for number, value in sorted(entries.items()):
            values = [value] * samples if number == 258 else [value]
            packed = struct.pack(f"<{len(values)}H", *values)
            if len(packed) > 4:
                packed, extra = struct.pack("<I", after + len(extra)), extra + packed
            rows += struct.pack("<HHI4s", number, 3, len(values), packed)
        (folder / "a.tif").write_bytes(
            b"II*\0" + struct.pack("<I", directory) + body + struct.pack("<H", len(entries)) + rows + bytes(4) + extra
        )
        return folder / "a.tif"

    return write


def several(suffix, **options):
    return pillow(RGB, suffix, save_all=True, append_images=[Image.fromarray(RGB[::-1].copy())], **options)


EXACT = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}


def turned(suffix, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return pillow(RGB, suffix, exif=exif, **EXACT.get(suffix, {}))


ORIENTED = {2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 5: RGB.transpose(1, 0, 2), 6: np.rot90(RGB, -1), 8: np.rot90(RGB)}
BLACK_OR_WHITE = np.where(GRAY > 127, 255, 0)[..., None].repeat(3, -1)
READ = {
    **{f"{suffix} {o}": (turned(suffix, o), upright) for suffix in ("png", "tif", "webp")
       for o, upright in ORIENTED.items()},
    "bilevel png": (pillow(GRAY > 127, "png"), BLACK_OR_WHITE),
    "bilevel tif": (pillow(GRAY > 127, "tif", compression="group4"), BLACK_OR_WHITE),
    "white is zero": (tiff(255 - GRAY, 8, 0), GRAY[..., None].repeat(3, -1)),
    "opaque png": (pillow(OPAQUE, "png"), RGB),
    "opaque bmp": (pillow(OPAQUE, "bmp"), RGB),
    "a colour that would be transparent": (pillow(RGB, "png", transparency=(1, 2, 3)), RGB),
    "jpg 6": (turned("jpg", 6), np.rot90(RGB, -1)),
    "previews": (several("jpg", format="MPO", quality=100, subsampling=0), RGB),
}  # fmt: skip
REFUSED = {
    "16 bits, png": (pillow(GRAY.astype(np.uint16), "png"), "it has 16 bits a channel; convert it to 8 bits"),
    "16 bits, tif": (pillow(GRAY.astype(np.uint16), "tif"), "it has 16 bits a channel; convert it to 8 bits"),
    "16 bits, rgb": (tiff(RGB.astype("<u2"), 16, 2), "it has 16 bits a channel; convert it to 8 bits a channel"),
    "32 bits": (tiff(GRAY.astype("<u4"), 32, 1), "it has 32 bits a channel"),
    "int32": (pillow(GRAY.astype(np.int32), "tif"), "its values are signed or floating"),
    "float32": (pillow(GRAY.astype(np.float32), "tif"), "its values are signed or floating"),
    "int8": (tiff(GRAY, 8, 1, t339=2), "its values are signed or floating"),
    "infrared": (tiff(ALPHA, 8, 2, t338=0), "it has 4 channels, which are not all gray, RGB or alpha"),
    "cmyk jpg": (pillow(RGB, "jpg", "CMYK"), "its colours are CMYK; convert it to RGB"),
    "cmyk tif": (pillow(RGB, "tif", "CMYK"), "its colours are CMYK; convert it to RGB"),
    "lab": (pillow(RGB, "tif", "LAB"), "its colours are LAB; convert it to RGB"),
    **{f"alpha {s}": (pillow(ALPHA, s), "transparent pixels; fill") for s in ("png", "tif", "webp", "bmp")},
    "a transparent colour": (pillow(RGB, "png", transparency=tuple(RGB[0, 0].tolist())), "transparent pixels"),
    "a transparent palette": (pillow(GRAY // 128, "png", "P", transparency=0), "transparent pixels"),
    **{f"pages {s}": (several(s), "it has 2 pictures; write each to a file of its own") for s in ("tif", "gif", "png")},
    "a default image": (several("png", default_image=True), "it has 2 pictures"),
    "another format": (pillow(RGB, "png", format="PPM"), "cannot identify image file"),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_a_file_says_is_honoured(name, tmp_path):
    write, pixels = READ[name]
    found = read_image(write(tmp_path), 3)
    assert found.dtype == np.uint8 and found.shape == pixels.shape
    assert np.abs(found.astype(int) - pixels).max() <= (8 if name in ("previews", "jpg 6") else 0)  # JPEG is not exact


@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "bmp"])
def test_a_palette_gives_its_colours(suffix, tmp_path):
    image = Image.frombytes("P", (10, 6), (GRAY // 86).tobytes())
    colours = [(9, 8, 7), (200, 0, 0), (0, 50, 255)]
    image.putpalette(sum(colours, ()))
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}", 3), np.array(colours)[GRAY // 86])


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_one_meaning_is_refused(name, tmp_path):
    write, message = REFUSED[name]
    path = write(tmp_path)
    with pytest.raises(ValueError, match=message) as error:
        read_image(path, 3)
    assert str(error.value).startswith(f"{path} cannot be read as an image: ") and "\n" not in str(error.value)
