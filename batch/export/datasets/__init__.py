"""A campaign's saved files as a dataset that trainers read. May import endpoints, fetch, jobs and errors.

`dataset.py` is the way through: rows become samples (`samples.py`), each is held against what an earlier export has put
there, and what is new is written by `folder.py` (a file each) or `shards.py` (many in one, by `tar.py` or `table.py`).
`facts.py` asks the files about themselves, `splits.py` says which part a sample belongs to, `card.py` describes the
whole.
"""

from batch.export.datasets.dataset import Dataset, Form, is_there, size_of, write_dataset
from batch.export.datasets.samples import About, Saved
from batch.export.datasets.splits import Splits, by_column, by_share, one_split

__all__ = [
    "About",
    "Dataset",
    "Form",
    "Saved",
    "Splits",
    "by_column",
    "by_share",
    "is_there",
    "one_split",
    "size_of",
    "write_dataset",
]
