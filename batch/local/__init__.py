"""The queue inside the program: it speaks fal's protocol, renders real preview clips, and can go wrong on purpose."""

from batch.local.fault_file import PlanError, parsed_plan, read_plan
from batch.local.faults import NO_FAULTS, FaultPlan, drawn_plan
from batch.local.queue import LocalQueue, QueueBusy, open_queue
from batch.local.runners import Render, RunBlocking
from batch.local.server import serve

__all__ = [
    "NO_FAULTS",
    "FaultPlan",
    "LocalQueue",
    "PlanError",
    "QueueBusy",
    "Render",
    "RunBlocking",
    "drawn_plan",
    "open_queue",
    "parsed_plan",
    "read_plan",
    "serve",
]
