"""What an endpoint takes, limits and costs: pure answers from data. Imports only jobs, settings and errors."""

from batch.endpoints.cells import read_cell
from batch.endpoints.check import Problem, check_input, shown
from batch.endpoints.endpoint import DEFAULT_ENDPOINT, Endpoint, Field, ImageLimits, built_in, load
from batch.endpoints.images import check_image
from batch.endpoints.price import PRICE_MARGIN_PERCENT, frame_size, nearest_ratio, price_micros

__all__ = [
    "DEFAULT_ENDPOINT",
    "PRICE_MARGIN_PERCENT",
    "Endpoint",
    "Field",
    "ImageLimits",
    "Problem",
    "built_in",
    "check_image",
    "check_input",
    "frame_size",
    "load",
    "nearest_ratio",
    "price_micros",
    "read_cell",
    "shown",
]
