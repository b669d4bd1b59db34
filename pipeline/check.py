"""`graft check`: everything cheap, before anything expensive."""

import os
from collections import Counter

import click

from components import storage
from components.image_files import ImageFile
from components.sources import list_images, resolve
from components.splits import check_budget, check_classes
from pipeline.config import Config
from trainer.backbones import require_weights


def check(config: Config, images: list[str]) -> None:
    """Reads headers (not pixels) of every image and prints what a run would start from.

    Raises:
      UsageError: the images or the weights cannot be had.
      DataRefused: as the run would refuse the data, so far as headers tell.
    """
    places = resolve(images, config.data.spans).places
    listing = list_images(places, config.data.follow_symlinks, config.data.split.group)
    rows, formats = [], Counter()
    for file in listing.files:
        reason, kind = _look(file, config)
        formats[kind] += 1
        rows.append({"path": file.path, "class_name": file.class_name, "reason": reason})
    bad = [row for row in rows if row["reason"]]
    good = [row for row in rows if not row["reason"]]
    for name in listing.classes:
        click.echo(f"{name}: {sum(row['class_name'] == name for row in good)} images")
    click.echo("Formats: " + ", ".join(f"{kind} {count}" for kind, count in formats.most_common()))
    for row in bad:
        click.echo(f"Would be quarantined: {row['path']} ({row['reason']})")
    if listing.skipped:
        click.echo(f"Skipped: {len(listing.skipped)} files, such as {listing.skipped[0][0]} ({listing.skipped[0][1]})")
    check_budget(rows, bad, config.data.max_bad_fraction)
    check_classes(good, listing.classes, config.data.min_images_per_class)
    model = config.model
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    require_weights(model.backbone, model.alpha, model.weights, config.image_size)
    click.echo(f"Ready: {len(good)} images, {model.backbone} at {config.image_size} px with {model.weights} weights.")


def _look(image: ImageFile, config: Config) -> tuple[str | None, str]:
    """(why the file would be quarantined or None, format) from its header alone."""
    from PIL import Image

    from components.inspection import PILLOW_FORMATS, read_header

    try:
        with storage.open_binary(image.location) as file:
            if image.size > config.data.max_bytes:
                return f"too large: {image.size} bytes", "unknown"
            start = file.read(1 << 16)
            if not start:
                return "empty file", "none"
            header = read_header(start)
            if header is None or 0 in header[1:]:
                file.seek(0)
                with Image.open(file, formats=PILLOW_FORMATS) as opened:
                    header = (opened.format.lower(), *opened.size)
    except OSError as error:
        return f"I/O error: {error.strerror}" if error.strerror else "not an image", "unknown"
    # Pillow's plugins raise whatever broken bytes lead them into.
    except Exception:
        return "not an image", "unknown"
    kind, width, height = header
    if width * height > config.data.max_pixels:
        return f"too large: {width}x{height} pixels", kind
    return None, kind
