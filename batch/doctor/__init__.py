"""The doctor: whether everything that a run needs is there and well. It never pays, changes nothing, takes no lock.

`findings` has what a check is, `machine` asks this machine, `remembered` the ledger and the saved files, `at_fal` fal;
`examine` asks them all.
"""

from batch.doctor.examine import examine, examined
from batch.doctor.findings import Finding, Verdict, World

__all__ = ["Finding", "Verdict", "World", "examine", "examined"]
