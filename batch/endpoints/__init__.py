"""What an endpoint takes, limits and costs: pure answers from data. Imports only jobs, settings and errors."""

from batch.endpoints.cells import read_cell
from batch.endpoints.check import Problem, are_judged_apart, check_input, check_value, shown, text_lengths
from batch.endpoints.describe import (
    TemplateColumn,
    differences,
    limits_in_words,
    output_in_words,
    template,
    type_in_words,
)
from batch.endpoints.endpoint import (
    DEFAULT_ENDPOINT,
    STAMP,
    Endpoint,
    ImageLimits,
    built_in,
    file_name,
    load,
    parsed,
    pinned_in,
)
from batch.endpoints.fields import Field, dotted, free_types, names_of, with_files
from batch.endpoints.images import check_image, check_size
from batch.endpoints.price import (
    PRICE_MARGIN_PERCENT,
    UnitPrice,
    built_in_price,
    counts_same,
    frame_size,
    nearest_ratio,
    price_micros,
)
from batch.endpoints.units import Unit

__all__ = [
    "DEFAULT_ENDPOINT",
    "PRICE_MARGIN_PERCENT",
    "STAMP",
    "Endpoint",
    "Field",
    "ImageLimits",
    "Problem",
    "TemplateColumn",
    "Unit",
    "UnitPrice",
    "are_judged_apart",
    "built_in",
    "built_in_price",
    "check_image",
    "check_input",
    "check_size",
    "check_value",
    "counts_same",
    "differences",
    "dotted",
    "file_name",
    "frame_size",
    "free_types",
    "limits_in_words",
    "load",
    "names_of",
    "nearest_ratio",
    "output_in_words",
    "parsed",
    "pinned_in",
    "price_micros",
    "read_cell",
    "shown",
    "template",
    "text_lengths",
    "type_in_words",
    "with_files",
]
