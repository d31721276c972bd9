"""The scheduler: what runs when. The only part of the line that waits, retries and stops.

`feed` starts jobs and ends the run, `gate` says whether another may be submitted, `submit` and `carry` are the way of
one job, `doubts` asks about lost answers.
"""

from batch.scheduler.feed import Scheduler
from batch.scheduler.options import Ending, RunOptions, Stop, StopKind

__all__ = ["Ending", "RunOptions", "Scheduler", "Stop", "StopKind"]
