"""Pillow against pyvips on JPEGs of 12 megapixels: seconds, CPU seconds and peak memory of one job's work.

Stands alone: ``pip install pillow 'pyvips[binary]'``, then ``python benchmarks/imaging.py``. Every measurement is a
process of its own, so that its peak memory is the whole of what a worker process would need. Prints a table in
Markdown; the figures of the least disturbed run count.
"""

import argparse
import json
import math
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SIZE = (4000, 3000)
BOX = 1280
SMALL_BOX = 256
QUALITY = 85
MARK = "gql-jobs"
CASES = {
    "read and write": [],
    "RESIZE": ["resize"],
    "THUMBNAIL": ["thumbnail"],
    "GRAYSCALE": ["grayscale"],
    "WATERMARK": ["watermark"],
    "all four": ["resize", "watermark", "grayscale", "thumbnail"],
    "WATERMARK first": ["watermark", "resize", "grayscale"],
}


def make_source(path: Path) -> None:
    """A picture with edges, gradients and noise, so that it packs about as badly as a photograph."""
    from PIL import Image, ImageDraw

    red = Image.radial_gradient("L").resize(SIZE)
    green = Image.linear_gradient("L").resize(SIZE)
    blue = Image.effect_noise((SIZE[0] // 8, SIZE[1] // 8), 80).resize(SIZE, Image.Resampling.BICUBIC)
    picture = Image.merge("RGB", (red, green, blue))
    grain = Image.effect_noise(SIZE, 24)
    picture = Image.blend(picture, Image.merge("RGB", (grain,) * 3), 0.15)
    draw = ImageDraw.Draw(picture)
    for i in range(60):
        x, y = 67 * i % SIZE[0], 131 * i % SIZE[1]
        draw.ellipse((x, y, x + 20 * i, y + 15 * i), outline=(255, 4 * i, 128), width=5)
    picture.save(path, quality=92)


def with_pillow(source: Path, target: Path, steps: Sequence[str]) -> None:
    """What workers/images does, in short."""
    from PIL import Image, ImageDraw, ImageFont

    def fit(picture: Any, box: int) -> Any:
        factor = min(box / picture.width, box / picture.height, 1)
        size = (round(picture.width * factor), round(picture.height * factor))
        return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)

    def watermark(picture: Any) -> Any:
        font = ImageFont.load_default(max(12, min(picture.size) // 20))
        left, top, right, bottom = (math.ceil(edge) for edge in font.getbbox(MARK))
        mask = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(mask).text((-left, -top), MARK, fill=160, font=font)
        picture.paste((255, 255, 255), (picture.width - right, picture.height - bottom), mask)
        return picture

    operations: dict[str, Callable[[Any], Any]] = {
        "resize": lambda picture: fit(picture, BOX),
        "thumbnail": lambda picture: fit(picture, SMALL_BOX),
        "grayscale": lambda picture: picture.convert("L"),
        "watermark": watermark,
    }
    picture: Any = Image.open(source)
    if steps and steps[0] in {"resize", "thumbnail"}:
        factor = (BOX if steps[0] == "resize" else SMALL_BOX) / max(picture.size) * 1.5
        picture.draft("RGB", (int(picture.width * factor), int(picture.height * factor)))
    for step in steps:
        picture = operations[step](picture)
    picture.save(target, quality=QUALITY)


def with_pyvips(source: Path, target: Path, steps: Sequence[str]) -> None:
    """The same; a first shrinking reads only what it needs, and everything streams."""
    import pyvips

    def fit(picture: Any, box: int) -> Any:
        return picture.thumbnail_image(box, height=box, size="down")

    def watermark(picture: Any) -> Any:
        text = pyvips.Image.text(MARK, font=f"sans {max(12, min(picture.width, picture.height) // 20)}", dpi=72)
        mask = (text * (160 / 255)).cast("uchar")
        white = mask.new_from_image([255, 255, 255]).copy(interpretation="srgb")
        x, y = picture.width - text.width, picture.height - text.height
        return picture.composite2(white.bandjoin(mask), "over", x=x, y=y).flatten()

    operations: dict[str, Callable[[Any], Any]] = {
        "resize": lambda picture: fit(picture, BOX),
        "thumbnail": lambda picture: fit(picture, SMALL_BOX),
        "grayscale": lambda picture: picture.colourspace("b-w"),
        "watermark": watermark,
    }
    pyvips.cache_set_max(0)
    rest = list(steps)
    if rest and rest[0] in {"resize", "thumbnail"}:
        box = BOX if rest.pop(0) == "resize" else SMALL_BOX
        picture: Any = pyvips.Image.thumbnail(str(source), box, height=box, size="down")
    else:
        picture = pyvips.Image.new_from_file(str(source), access="sequential")
    for step in rest:
        picture = operations[step](picture)
    picture.jpegsave(str(target), Q=QUALITY)


LIBRARIES = {"pillow": with_pillow, "pyvips": with_pyvips}


def measure(library: str, case: str, source: Path) -> None:
    """In a child process: do it once and print what it took. The library's import is not timed."""
    __import__({"pillow": "PIL.Image"}.get(library, library))
    target = source.with_name(f"{library}.jpg")
    began, used = time.perf_counter(), time.process_time()
    LIBRARIES[library](source, target, CASES[case])
    took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
    unit = 1 if sys.platform == "darwin" else 1024
    took["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(json.dumps(took))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="measurements of each case")
    parser.add_argument("--one", nargs=3, metavar=("LIBRARY", "CASE", "SOURCE"), help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.source:
        make_source(options.source)
        return
    if options.one:
        library, case, source = options.one
        measure(library, case, Path(source))
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.jpg")
        # In a child: a process inherits the peak memory of the one that started it.
        subprocess.check_call([sys.executable, __file__, "--source", str(source)])
        megabytes = source.stat().st_size / 1e6
        print(
            f"{SIZE[0]} x {SIZE[1]}, {megabytes:.1f} MB, best of {options.runs}; Python {platform.python_version()}\n"
        )
        print("| operations | library | seconds | CPU seconds | peak MB |")
        print("|---|---|---|---|---|")
        for case in CASES:
            for library in LIBRARIES:
                command = [sys.executable, __file__, "--one", library, case, str(source)]
                taken = [json.loads(subprocess.check_output(command)) for _ in range(options.runs)]
                seconds, cpu = (min(one[key] for one in taken) for key in ("seconds", "cpu"))
                peak = max(one["peak"] for one in taken) / 1e6
                print(f"| {case} | {library} | {seconds:.3f} | {cpu:.3f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
