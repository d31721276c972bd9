"""What `--json` prints: one document a command, described in docs/json.md. Names here are a contract: they are added
to, and not changed. Money is integer micro-dollars (`_micros`), times are seconds since 1970 in UTC (`_at`)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from batch.doctor import Finding
from batch.errors import FalBatchError, ManifestError
from batch.ledger import CampaignTotals, JobLine
from batch.run import CallOff, Reconciled, RunReport
from batch.settings import OPTIONS, Settings
from batch.views import Exported, Quote, StatusReport

if TYPE_CHECKING:
    from batch.export.datasets import Dataset
    from batch.export.gallery import Gallery
    from batch.init import Started

__all__ = [
    "call_off_of",
    "error_of",
    "finding_of",
    "gallery_of",
    "job_of",
    "plan_of",
    "reconciled_of",
    "run_of",
    "settings_of",
    "started_of",
    "status_of",
]


def plan_of(quote: Quote, settings: Settings) -> dict[str, Any]:
    planned = quote.planned
    return {
        "campaign": quote.campaign,
        "sheet_rows": planned.sheet_rows,
        "combinations": quote.combinations,
        "rows": planned.rows,
        "jobs": planned.jobs,
        "to_submit": planned.to_submit,
        "new": planned.new,
        "changed": planned.changed,
        "under_way": planned.under_way,
        "done": planned.done,
        "failed": planned.failed,
        "cancelled": planned.cancelled,
        "duplicates": planned.rows - planned.jobs,
        "elsewhere": planned.elsewhere,
        "superseded": dataclasses.asdict(planned.superseded),
        "to_submit_by_endpoint": dict(planned.to_submit_by_endpoint),
        "carried": list(quote.carried),
        "notes": list(quote.notes),
        "estimate_micros": planned.estimate_micros,
        "price_min_micros": planned.price_min_micros,
        "price_max_micros": planned.price_max_micros,
        "unpriced": planned.unpriced,
        "concurrency": settings.concurrency,
        "state": str(settings.state),
        "is_first": quote.is_first,
        "cap_micros": quote.cap_micros,
        "used_micros": quote.used_micros,
        "affordable": planned.affordable,
        "this_run": {"jobs": quote.submits, "estimate_micros": quote.estimate_micros, "seconds": quote.seconds},
        "prices": [dataclasses.asdict(basis) for basis in quote.prices],
        "first_requests": [dataclasses.asdict(request) for request in quote.requests],
        "first_duplicates": [dataclasses.asdict(duplicate) for duplicate in quote.duplicates],
    }


def status_of(report: StatusReport) -> dict[str, Any]:
    return {
        "campaign": report.campaign,
        **_totals(report.totals),
        "outputs": str(report.outputs),
        "doubts": list(report.doubts),
        "first_failures": list(report.failures),
        "at_work": report.at_work,
    }


def run_of(report: RunReport) -> dict[str, Any]:
    ending = report.ending
    stop = None if ending is None else ending.stop
    return {
        **status_of(report.status),
        "submitted": 0 if ending is None else ending.submitted,
        "stopped": None if stop is None else {"cause": stop.cause, "message": stop.message},
        "notes": [] if ending is None else list(ending.notes),
        "prices": [dataclasses.asdict(basis) for basis in report.prices],
        "exit_code": report.exit_code,
    }


def job_of(line: JobLine) -> dict[str, Any]:
    return {
        **{field.name: getattr(line, field.name) for field in dataclasses.fields(line)},
        "state": line.state.value,
        "paths": list(line.paths),
        "urls": list(line.urls),
    }


def call_off_of(found: CallOff) -> dict[str, Any]:
    return dataclasses.asdict(found)


def reconciled_of(found: Reconciled) -> dict[str, Any]:
    findings = [one.finding for one in found.judged]
    return {
        "attempts": [dataclasses.asdict(one) for one in found.judged],
        "found": findings.count("found"),
        "absent": findings.count("absent"),
        "in_doubt": findings.count("in_doubt"),
        "due_at": found.due_at,
        "exit_code": found.exit_code,
    }


def settings_of(settings: Settings) -> list[dict[str, Any]]:
    """Every setting, its value as text and its source; of the key only whether it is there."""
    lines = [
        {"name": name, "value": option.text(getattr(settings, name)), "source": settings.sources[name]}
        for name, option in OPTIONS.items()
    ]
    is_set = settings.key is not None
    return [*lines, {"name": "key", "value": "set" if is_set else "not set", "source": settings.sources["key"]}]


def finding_of(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "verdict": finding.verdict.value,
        "found": finding.found,
        "advice": finding.advice,
    }


def exported_of(exported: Exported) -> dict[str, Any]:
    return {**dataclasses.asdict(exported), "path": str(exported.path), "notes": list(exported.notes)}


def dataset_of(made: Dataset) -> dict[str, Any]:
    return {**dataclasses.asdict(made), "path": str(made.path)}


def gallery_of(made: Gallery) -> dict[str, Any]:
    return {**dataclasses.asdict(made), "path": str(made.path)}


def started_of(made: Started) -> dict[str, Any]:
    return {**dataclasses.asdict(made), "campaign": str(made.campaign), "sheet": str(made.sheet)}


def error_of(exc: FalBatchError, exit_code: int) -> dict[str, Any]:
    """A refusal; with the mistakes of a manifest one by one."""
    if not isinstance(exc, ManifestError):
        return {"error": str(exc), "exit_code": exit_code}
    return {
        "error": f"{exc.count} {'mistake' if exc.count == 1 else 'mistakes'} in the manifest; nothing was {exc.undone}",
        "exit_code": exit_code,
        "count": exc.count,
        "by_kind": dict(exc.by_kind()),
        "mistakes": [dataclasses.asdict(issue) for issue in exc.issues],
        "notes": list(exc.notes),
    }


def _totals(totals: CampaignTotals) -> dict[str, Any]:
    return {
        **dataclasses.asdict(totals),
        "settled_estimate_micros": totals.settled_micros - totals.settled_told_micros,
        "exposure_micros": totals.exposure_micros,
    }
