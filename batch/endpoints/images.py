"""Whether a file is one that the model takes: format, size and shape against what is known of its limits. Pure.

It opens no file: the caller knows the numbers.
"""

from __future__ import annotations

from batch.endpoints.endpoint import Endpoint
from batch.endpoints.fields import Field

__all__ = ["check_image", "check_size"]


def check_image(endpoint: Endpoint, *, media_type: str, width: int, height: int, size_bytes: int) -> tuple[str, ...]:
    """What is wrong with an image of these measures, in words; empty when nothing is, or when no limits are known."""
    limits = endpoint.image_limits
    if limits is None:
        return ()
    found = []
    if media_type not in limits.media_types:
        known = ", ".join(name.removeprefix("image/") for name in limits.media_types)
        found.append(f"{media_type} is not a format that the model takes ({known})")
    if size_bytes >= limits.size_bytes_under:
        found.append(f"{size_bytes / 1e6:.1f} MB: the file must be under {limits.size_bytes_under / 1e6:.0f} MB")
    if not all(limits.side_px_over < side < limits.side_px_under for side in (width, height)):
        bounds = f"over {limits.side_px_over} and under {limits.side_px_under} pixels"
        found.append(f"{width} x {height} pixels: each side must be {bounds}")
    if height and not limits.ratio_over < width / height < limits.ratio_under:
        found.append(
            f"{width} x {height} pixels: width / height is {width / height:.3g}, and must lie between "
            f"{limits.ratio_over} and {limits.ratio_under}"
        )
    return tuple(found)


def check_size(field: Field, *, size_bytes: int, side_px: tuple[int, int] | None = None) -> tuple[str, ...]:
    """What is wrong with a file by the field's own limits (`max_file_size`, `min_width`, …), in words."""
    said = field.limits
    found = []
    most = said.get("max_file_size")
    if most is not None and size_bytes > most:
        found.append(f"{size_bytes / 1e6:.1f} MB: the file may have {most / 1e6:.1f} MB")
    if side_px is None or not all(side_px):
        return tuple(found)
    measures = {"width": side_px[0], "height": side_px[1], "aspect_ratio": side_px[0] / side_px[1]}
    for name, measure in measures.items():
        least, most = said.get(f"min_{name}"), said.get(f"max_{name}")
        if (least is not None and measure < least) or (most is not None and measure > most):
            bounds = " and ".join(
                f"{word} {limit}" for word, limit in (("at least", least), ("at most", most)) if limit is not None
            )
            unit = "" if name == "aspect_ratio" else " pixels"
            found.append(f"its {name.replace('_', ' ')} is {measure:.4g}{unit}, and must be {bounds}")
    return tuple(found)
