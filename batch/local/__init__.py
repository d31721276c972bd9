"""The queue inside the program: fal's protocol, rendering real preview clips from the pictures."""

from batch.local.queue import LocalQueue, QueueBusy, open_queue
from batch.local.runners import Render, RunBlocking
from batch.local.server import serve

__all__ = ["LocalQueue", "QueueBusy", "Render", "RunBlocking", "open_queue", "serve"]
