"""fal: the only speaker of fal's queue protocol.

protocol.py has its words (no I/O), failures.py what each failure means, transport.py has the connections, wire.py puts
the key on requests, client.py submits and follows, events.py listens, storage.py uploads, history.py looks back,
webhook.py knows what fal delivers.
"""

from batch.fal.client import CANCEL_GRACE_S, SUBMIT_DEADLINE_S, FalClient
from batch.fal.protocol import CancelAnswer, Hosts, app_id
from batch.fal.transport import transports

__all__ = ["CANCEL_GRACE_S", "SUBMIT_DEADLINE_S", "CancelAnswer", "FalClient", "Hosts", "app_id", "transports"]
