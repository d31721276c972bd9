"""Late witnesses: attempts that the user gave up and that fal had taken after all. What is paid for is saved.

Their jobs have gone on without them; nothing here moves a job.
"""

from __future__ import annotations

from batch.errors import Action, CallFailed, DownloadFailed
from batch.fal import FalClient
from batch.jobs import FalStatus
from batch.ledger import Ledger, OpenJob
from batch.save import Saver

__all__ = ["Witnesses"]


class Witnesses:
    """Those of one campaign. `notes` are lines for the user, one for each that was paid for twice in this run."""

    def __init__(self, *, ledger: Ledger, fal: FalClient, saver: Saver, campaign_id: int, has_downloads: bool) -> None:
        self._ledger = ledger
        self._fal = fal
        self._saver = saver
        self._campaign_id = campaign_id
        self._has_downloads = has_downloads
        self.notes: list[str] = []

    async def follow(self) -> None:
        """Take each one's result and save its files, as far as fal has them now. The next run asks for what is left."""
        for job in self._ledger.witnesses(self._campaign_id):
            if job.result is None and not await self._take_result(job):
                continue
            if self._has_downloads:
                (found,) = [one for one in self._ledger.witnesses(self._campaign_id) if _is_same(one, job)]
                await self._save(found)

    async def _take_result(self, job: OpenJob) -> bool:
        """Whether its result is in the ledger now."""
        assert job.attempt is not None and job.ticket is not None
        try:
            status = await self._fal.status(job.endpoint, job.ticket)
            if status.status is not FalStatus.COMPLETED:
                return False
            outcome = await self._fal.result(job.endpoint, job.ticket)
        except CallFailed as exc:
            self._verdict(job, exc)
            return False
        self._ledger.witness_paid(job.attempt, outcome)
        self.notes.append(f"paid twice: {self._name(job)} had been taken when it was given up")
        return True

    def _verdict(self, job: OpenJob, exc: CallFailed) -> None:
        assert job.attempt is not None
        if exc.action is Action.RESUBMIT or (exc.action in _FINAL and exc.is_billed is False):
            self._ledger.witness_free(job.attempt, message=exc.message)
        elif exc.action in _FINAL:
            self._ledger.witness_paid(job.attempt, None, message=exc.message)
            self.notes.append(f"paid twice: {self._name(job)} had been taken when it was given up, and failed")

    async def _save(self, job: OpenJob) -> None:
        assert job.attempt is not None
        try:
            paths = await self._saver.save_beside(job, self._campaign_id)
        except DownloadFailed:
            return  # the next run tries again
        self._ledger.witness_saved(job.attempt)
        self.notes.append(f"the second result of {self._name(job)} is saved as {', '.join(map(str, paths))}")

    def _name(self, job: OpenJob) -> str:
        assert job.attempt is not None
        placement = self._ledger.placement(self._campaign_id, job.id)
        return f"{placement.address} {placement.row_id}, attempt {job.attempt.number},"


_FINAL = frozenset({Action.FAIL_JOB, Action.CANCELLED})


def _is_same(one: OpenJob, other: OpenJob) -> bool:
    assert one.attempt is not None and other.attempt is not None
    return one.attempt.id == other.attempt.id
