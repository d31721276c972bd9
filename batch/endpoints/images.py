"""Whether an image is one that the model takes: format, size and shape against the endpoint's limits. Pure.

It opens no file: the caller knows the numbers.
"""

from __future__ import annotations

from batch.endpoints.endpoint import Endpoint

__all__ = ["check_image"]


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
