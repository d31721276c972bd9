"""What a person is told, as lines of text. Pure: values in, words out."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch.budget import usd
from batch.cli.options import typed
from batch.doctor import Finding, Verdict
from batch.errors import ISSUES_PRINTED_MAX, ManifestError
from batch.ledger import CampaignTotals, JobLine, Judged
from batch.places import SHEET_SUFFIXES, kind_of, stem_of
from batch.pricing import PriceBasis
from batch.run import CallOff, Reconciled, RunReport
from batch.settings import Settings
from batch.states import State
from batch.views import Quote, SampleRequest, StatusReport

if TYPE_CHECKING:
    from batch.export.datasets import Dataset
    from batch.export.gallery import Gallery
    from batch.init import Started

__all__ = [
    "basis_in_words",
    "call_off_lines",
    "count_of",
    "duration",
    "end_lines",
    "finding_line",
    "findings_summary",
    "gallery_line",
    "job_line",
    "jobs_header",
    "manifest_error_lines",
    "plan_lines",
    "question",
    "reconciled_lines",
    "started_lines",
    "status_lines",
    "summary",
]

EXIT_STOPPED, EXIT_IN_DOUBT, EXIT_INTERRUPTED = 4, 5, 130

_MEANT = {"stopped": " (the run was told to stop before it was sent)"}  # what a cause does not say of itself

_LABEL = 13  # the width of the first column of a plan


def count_of(count: int, noun: str) -> str:
    """`1 row`, `1,118 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 10 min`, `2 days 4 h`: two units at the most."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h" + (f" {rest} min" if rest else "")
    return f"{hours // 24} days" + (f" {hours % 24} h" if hours % 24 else "")


# --- a plan ---


def plan_lines(quote: Quote, settings: Settings) -> list[str]:
    """What a run would do; the requests and duplicates only where the quote has samples of them."""
    planned = quote.planned
    head = f"{quote.campaign}: {_rows(quote)}, {count_of(planned.jobs, 'job')}"
    lines = [f"{head}, {planned.to_submit:,} to submit"]
    lines += [_fact(label, count, words) for label, count, words in _counts(quote) if count]
    for duplicate in quote.duplicates:
        lines.append(_fact("", "", f"{duplicate.address} {duplicate.row_id} asks for the same as {duplicate.first}"))
    if quote.carried:
        lines.append(_fact("not sent", "", f"{', '.join(quote.carried)}: carried along to the results"))
    lines += [_fact(label, "", words) for label, words in _money(quote, settings)]
    if quote.seconds is not None:
        how = f"about {duration(quote.seconds)} with {settings.concurrency} at once"
        lines.append(_fact("time", "", f"{how}, going by the jobs done so far"))
    elif quote.submits:
        how = f"not known before the first are done; {settings.concurrency} at once"
        lines.append(_fact("time", "", how))
    lines += [_fact("note", "", note) for note in quote.notes]
    if quote.is_first:
        lines.append(_fact("note", "", f"no ledger yet: what is paid for will be remembered in {settings.state}"))
    if quote.requests:
        lines.append("the first requests:" if len(quote.requests) > 1 else "the first request:")
    return [*lines, *(line for request in quote.requests for line in _request(request))]


def question(quote: Quote) -> str:
    """What a person is asked before anything is spent."""
    price = f"up to {usd(quote.estimate_micros)}"
    if quote.planned.unpriced:
        price = "a price that is not known" if quote.planned.price_max_micros is None else f"{price} and more"
    if quote.in_doubt:
        jobs = "the job in doubt" if quote.submits == 1 else f"the {quote.submits:,} jobs in doubt"
        return f"Submit {jobs} again for {price}, and PERHAPS PAY TWICE for what fal has taken already?"
    return f"Submit {count_of(quote.submits, 'job')} for {price}?"


def _rows(quote: Quote) -> str:
    """`12 rows`, or how they come together: `355 pictures x 6 combinations x 2 takes = 4,260 rows`."""
    planned = quote.planned
    parts = [count_of(planned.sheet_rows, quote.unit)]
    if quote.combinations > 1:
        parts.append(count_of(quote.combinations, "combination"))
    takes, rest = divmod(planned.rows, max(1, planned.sheet_rows * quote.combinations))
    if takes > 1 and not rest:
        parts.append(count_of(takes, "take"))
    rows = count_of(planned.rows, "row")
    if len(parts) == 1 and planned.rows == planned.sheet_rows:
        return parts[0]
    return f"{' x '.join(parts)} = {rows}" if not rest else f"{' x '.join(parts)}, with their takes {rows}"


def _counts(quote: Quote) -> Iterator[tuple[str, int, str]]:
    planned = quote.planned
    gone = planned.superseded
    parts = [
        (gone.dropped, "not submitted any more"),
        (gone.followed, "at fal or in doubt, followed to the end"),
        (gone.ended, "ended already"),
    ]
    yield "new", planned.new, ""
    yield "changed", planned.changed, "their rows asked for something else before"
    if quote.retried:
        yield (
            "retried",
            quote.retried,
            "in doubt: what fal has taken already is paid for twice" if quote.in_doubt else "",
        )
    else:
        over = planned.to_submit - planned.new - planned.changed
        yield "left over", over, "from an earlier run that did not come to them"
    yield "under way", planned.under_way, "at fal, in doubt, or paid and not saved yet"
    yield "done", planned.done, ""
    yield "failed", planned.failed, "`fal-batch retry` tries them again"
    yield "cancelled", planned.cancelled, "`fal-batch retry` tries them again"
    yield "left alone", quote.rest, "a retry submits nothing else; `fal-batch run` does them"
    yield "duplicates", planned.rows - planned.jobs, "ask for the same as another row: made once, saved for each"
    yield "elsewhere", planned.elsewhere, "wanted by another campaign before: not paid for again"
    told = ", ".join(f"{count:,} {words}" for count, words in parts if count)
    yield "superseded", gone.count, f"wanted before and no longer: {told}"


def _money(quote: Quote, settings: Settings) -> Iterator[tuple[str, str]]:
    planned = quote.planned
    if planned.to_submit:
        low, high = planned.price_min_micros, planned.price_max_micros
        each = usd(high) if low == high else f"{usd(low)} to {usd(high)}"
        price = "" if high is None else f"{each} a job, up to {usd(planned.estimate_micros)} in all"
        if planned.unpriced:
            unknown = f"of {count_of(planned.unpriced, 'job')} is not known (--price says one)"
            price = f"{price}; that {unknown}" if price else f"that {unknown}"
        yield "price", price + ("; a rehearsal costs nothing" if settings.local else "")
        for basis in quote.prices:
            yield "", basis_in_words(basis, is_only=len(quote.prices) == 1)
    if quote.cap_micros is not None:
        left = f"{usd(quote.cap_micros)}, {usd(quote.used_micros)} of it used"
        fit = "all fit" if planned.affordable == planned.to_submit else f"{planned.affordable:,} of them fit"
        fit = fit if planned.affordable else "not one of them fits"
        yield "cap", f"{left}: {fit}" if planned.to_submit else left
    if quote.submits < planned.affordable:
        yield "this run", f"{count_of(quote.submits, 'job')} (--limit) for up to {usd(quote.estimate_micros)}"


def basis_in_words(basis: PriceBasis, *, is_only: bool) -> str:
    """Whose word an endpoint's price is: `by fal's price list of 2026-11-22: $1.00 per 1m tokens`."""
    unit = "" if basis.unit is None else f"{_usd_text(basis.unit_usd)} per {basis.unit}"
    told = {
        "option": "as --price says",
        "fal": f"by fal's price list of {basis.as_of}: {unit}",
        "built_in": f"by the built-in rule of {basis.as_of}: {unit}",
        "unknown": f"fal's price list has {unit}" if unit else "no price is known",
    }[basis.source]
    note = f" ({basis.note})" if basis.note and basis.source != "option" else ""
    return ("" if is_only else f"{basis.endpoint}: ") + told + note


def _usd_text(amount: str | None) -> str:
    """An exact decimal as money: `$1.00`, `$0.0025`."""
    whole, _, places = (amount or "0").partition(".")
    return f"${int(whole):,}.{places.rstrip('0'):0<2}"


def _fact(label: str, count: int | str, words: str) -> str:
    number = f"{count:>9,}" if isinstance(count, int) else " " * 9
    if not isinstance(count, int):
        return f"  {label:<{_LABEL}}{words}".rstrip()
    return f"  {label:<{_LABEL}}{number.strip()}{'  ' + words if words else ''}"


def _request(request: SampleRequest) -> list[str]:
    price = "" if request.price_micros is None else f", up to {usd(request.price_micros)}"
    lines = [f"  {request.address} {request.row_id} -> {request.endpoint}{price}"]
    lines += [f"    {line}" for line in json.dumps(request.body, indent=2, ensure_ascii=False).splitlines()]
    if request.defaults:
        left = ", ".join(f"{name} {_plain(value)}" for name, value in request.defaults.items())
        lines.append(f"    left to fal: {left}")
    return lines


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- where it stands ---


def summary(name: str, totals: CampaignTotals) -> str:
    """One line: every row counted once."""
    parts = (
        (totals.paid_fetch_later, "paid, fetch later"),
        (totals.failed, "failed"),
        (totals.cancelled, "cancelled"),
        (totals.in_doubt, "in doubt"),
        (totals.in_flight, "in flight"),
        (totals.waiting, "waiting"),
        (totals.not_started, "not started"),
    )
    counts = "".join(f", {count:,} {words}" for count, words in parts if count)
    return f"{name}: {count_of(totals.rows, 'row')}, {totals.fetched:,} saved{counts}"


def status_lines(report: StatusReport, *, is_rehearsal: bool, flags: Mapping[str, Any] | None = None) -> list[str]:
    """Where one campaign stands. `flags` are those that were typed."""
    totals = report.totals
    lines = [summary(report.campaign, totals)]
    if report.at_work is not None:
        lines.append(f"  at work: {report.at_work}")
    lines += [f"  failed: {count:,} {cause}" for cause, count in totals.failed_by_cause.items()]
    lines += [f"    {line}" for line in report.failures]
    if totals.failed > len(report.failures):
        all_of_them = _about("jobs", report, is_rehearsal=is_rehearsal, flags=flags)
        lines.append(f"    … and {totals.failed - len(report.failures):,} more (`{all_of_them} --only failed`)")
    waiting = totals.waiting_by_cause.items()
    lines += [f"  waiting to be tried again: {n:,} {cause}{_MEANT.get(cause, '')}" for cause, n in waiting]
    lines += [f"  paid, fetch later: {n:,} {cause}" for cause, n in totals.paid_fetch_later_by_cause.items()]
    lines += [f"  in doubt: {line}" for line in report.doubts[:ISSUES_PRINTED_MAX]]
    if len(report.doubts) > ISSUES_PRINTED_MAX:
        lines.append(f"  … and {len(report.doubts) - ISSUES_PRINTED_MAX:,} more in doubt")
    if totals.superseded_open or totals.superseded_in_doubt:
        open_, doubts = totals.superseded_open, totals.superseded_in_doubt
        lines.append(f"  no row wants them any more: {open_:,} accepted and followed, {doubts:,} in doubt")
    return [*lines, _spent(totals, is_rehearsal=is_rehearsal), f"  files: {report.outputs}"]


def _about(verb: str, report: StatusReport, *, is_rehearsal: bool, flags: Mapping[str, Any] | None) -> str:
    """A command about the campaign in the same ledger, as it can be typed."""
    if report.manifest is None:
        return f"fal-batch {verb} MANIFEST"
    is_known_by_path = kind_of(report.manifest) in SHEET_SUFFIXES and stem_of(report.manifest) == report.campaign
    named = {"campaign": None if is_known_by_path else report.campaign, "local": "yes" if is_rehearsal else None}
    return _same(verb, report.manifest, {**(flags or {}), **named})


def _spent(totals: CampaignTotals, *, is_rehearsal: bool) -> str:
    if is_rehearsal:
        unknown = f", and {count_of(totals.unpriced_attempts, 'submit')} without a known price"
        return (
            f"  a rehearsal: fal would have billed {usd(totals.settled_micros)}"
            f"{unknown if totals.unpriced_attempts else ''}"
        )
    parts = [f"{usd(totals.settled_micros)} spent{_whose_word(totals)}"]
    if totals.reserved_micros:
        parts.append(f"{usd(totals.reserved_micros)} reserved")
    if totals.in_doubt_micros:
        parts.append(f"{usd(totals.in_doubt_micros)} in doubt")
    if totals.given_up:
        parts.append(
            f"perhaps {usd(totals.given_up_micros)} for {count_of(totals.given_up, 'submit')} given up in doubt"
        )
    if totals.paid_twice:
        paid = count_of(totals.paid_twice, "submit")
        parts.append(
            f"of the spent, {usd(totals.paid_twice_micros)} for {paid} given up that fal had taken: paid twice"
        )
    if totals.unpriced_attempts:
        parts.append(f"{count_of(totals.unpriced_attempts, 'submit')} without a known price")
    left = [f"up to {usd(totals.to_submit_micros)}"] if totals.to_submit_micros else []
    if totals.to_submit_unpriced:
        left.append(f"{count_of(totals.to_submit_unpriced, 'job')} without a known price")
    if left:
        parts.append(f"{' and '.join(left)} for what is not submitted yet")
    return f"  money: {', '.join(parts)}"


def _whose_word(totals: CampaignTotals) -> str:
    """How much of what is spent is fal's own count, and how much our estimate."""
    estimated = totals.settled_micros - totals.settled_told_micros
    if not totals.settled_micros:
        return ""
    if not totals.settled_told_micros:
        return " (estimated)"
    told = f"{usd(totals.settled_told_micros)} by fal's count"
    return f" ({told}, {usd(estimated)} estimated)" if estimated else " (by fal's count)"


def jobs_header() -> str:
    return f"{'state':<10} {'row':<20} {'id':<20} {'cost':>9}  what"


def job_line(line: JobLine) -> str:
    """One row of the table of `jobs`."""
    cost = "" if line.cost_micros is None else usd(line.cost_micros)
    cost = f"~{cost}" if line.cost_micros and line.cost_source != "fal" else cost
    return f"{line.state.value:<10} {line.address:<20} {line.stem:<20} {cost:>9}  {_detail(line)}".rstrip()


def _detail(line: JobLine) -> str:
    if line.state is State.FETCHED:
        return ", ".join(line.paths)
    reason = ": ".join(part for part in (line.cause, line.message) if part)
    again = f"again at {time.strftime('%H:%M:%S', time.localtime(line.due_at))}" if line.due_at > 1 else ""
    if line.state in {State.SUBMITTED, State.COMPLETED}:
        return ", ".join(part for part in (line.fal_status or "", line.request_id or "", reason, again) if part)
    if line.state is State.WAITING:
        return ", ".join(part for part in (reason, again) if part)
    return reason if line.state is not State.PLANNED else ""


# --- the end of a run ---


def end_lines(report: RunReport, manifest: Path, flags: Mapping[str, Any], *, is_rehearsal: bool) -> list[str]:
    """How a run ended, and the exact command to go on with."""
    lines = []
    if report.ending is None:
        lines.append("nothing to do: no request was made")
    elif report.ending.stop is not None:
        lines.append(f"stopped: {report.ending.stop.message}")
    if report.ending is not None:
        lines += report.ending.notes
    lines += status_lines(report.status, is_rehearsal=is_rehearsal, flags=flags)
    return lines + _next_lines(report, manifest, flags, is_rehearsal=is_rehearsal)


def _next_lines(report: RunReport, manifest: Path, flags: Mapping[str, Any], *, is_rehearsal: bool) -> list[str]:
    """Never a command that would pay again by being typed again: going on is always `run`."""
    stop = None if report.ending is None else report.ending.stop
    if stop is not None and stop.cause == "cap":
        totals = report.status.totals
        enough = -(-(totals.exposure_micros + totals.to_submit_micros) // 10_000) / 100  # up to the next cent
        flags = {**flags, "max_cost": f"{enough:.2f}"}
        return [f"to go on with all that is left: {shlex.join(typed('run', manifest, flags))}"]
    if stop is not None and stop.cause == "fail_on_error":
        flags = {**flags, "fail_on_error": None}
    go_on, retry = shlex.join(typed("run", manifest, flags)), shlex.join(typed("retry", manifest, flags))
    totals, lines = report.status.totals, []
    if report.exit_code in {EXIT_STOPPED, EXIT_INTERRUPTED}:
        lines.append(f"to go on: {go_on}")
        if totals.in_flight and not is_rehearsal:
            how_many = "1 job goes on" if totals.in_flight == 1 else f"{totals.in_flight:,} jobs go on"
            call_off = _same("cancel", manifest, flags)
            lines.append(f"{how_many} at fal meanwhile, and will be billed; to call off: {call_off}")
    elif report.exit_code == EXIT_IN_DOUBT:
        asking = shlex.join(typed("retry", manifest, {**flags, "yes": None}))  # that much is asked for each time
        lines += [f"to look again: {go_on}", f"to submit them again and perhaps pay twice: {asking} --in-doubt"]
    elif totals.failed:
        price = "" if is_rehearsal else ", and pay for that"
        lines.append(f"to try the failed ones again{price}: {retry}")
    elif totals.cancelled:
        lines.append(f"to have the cancelled ones made after all: {retry}")
    if totals.completed and flags.get("no_download"):
        lines.append(f"to fetch the files: {shlex.join(typed('run', manifest, {**flags, 'no_download': None}))}")
    return lines


def _same(verb: str, manifest: Path, flags: Mapping[str, Any]) -> str:
    """Another command about the same campaign in the same ledger."""
    return shlex.join(typed(verb, manifest, {name: flags.get(name) for name in ("state", "local", "campaign")}))


def reconciled_lines(found: Reconciled) -> list[str]:
    """A table of what was in doubt, and what is known of it now."""
    if not found.judged:
        return ["nothing is in doubt"]
    lines = [f"{'row':<20} {'id':<20} {'submitted':<17} {'price':>9}  what fal's history says"]
    for one in found.judged:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.submitted_at))
        name = f"{one.address:<20} {one.stem:<20} {when:<17} {usd(one.price_micros):>9}"
        lines.append(f"{name}  {_finding(one)}")
    if found.due_at is not None:
        due = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.due_at))
        lines.append(f"the same command can settle more from {due} on (--wait waits for it)")
    return lines


def _finding(one: Judged) -> str:
    if one.finding == "found" and one.was_given_up:
        return f"taken after all, as {one.request_id}: paid twice, and saved beside the other"
    told = {
        "found": f"taken, as {one.request_id}: `run` saves it",
        "absent": "never taken: free of charge" + ("" if one.was_given_up else "; `run` submits it again"),
        "given_up": "given up; nothing known of it yet",
        "in_doubt": f"still in doubt: {one.why or 'its answer was not seen'}",
    }
    return told[one.finding]


def call_off_lines(found: CallOff) -> list[str]:
    """What became of the jobs that were to be called off, and why others that were meant were not."""
    lines = [f"{found.cancelled:,} called off, {found.finished:,} finished before, {found.still_open:,} still at fal"]
    if found.unsaved:
        lines.append(f"  {found.unsaved:,} of those finished are paid for and not saved yet: `run` fetches them")
    if found.still_open:
        lines.append("  the wish is noted: `cancel` or `run` typed again goes on with it")
    if found.in_doubt:
        lines.append(f"  {found.in_doubt:,} in doubt: fal has not told their name; `run` or `reconcile` looks for it")
    if found.not_submitted:
        lines.append(
            f"  {found.not_submitted:,} are not submitted yet: `run` would; take their rows out of the sheet if not"
        )
    rows = ", ".join(f"{row_id} of {campaign}" for campaign, row_id in found.shared[:ISSUES_PRINTED_MAX])
    if found.shared:
        lines.append(f"  left alone, because other rows want the same: {rows}; --shared calls them off for all")
    if found.stopped:
        lines.append(f"  stopped: {found.stopped}")
    return lines


def finding_line(finding: Finding) -> str:
    """What one check of the doctor found, and what to do about it."""
    advice = "" if finding.advice is None else f" -> {finding.advice}"
    return f"{finding.verdict.value:<8} {finding.name:<15} {finding.found}{advice}"


def findings_summary(findings: Sequence[Finding]) -> str:
    counts = [sum(finding.verdict is verdict for finding in findings) for verdict in (Verdict.TROUBLE, Verdict.NOTE)]
    in_trouble = "nothing is in trouble" if not counts[0] else f"{counts[0]} in trouble"
    return f"{count_of(len(findings), 'check')}: {in_trouble}" + (
        f", {count_of(counts[1], 'note')}" if counts[1] else ""
    )


def started_lines(made: Started) -> Iterator[str]:
    """What was made, and what to do with it."""
    yield f"{made.campaign}: a campaign on {made.endpoint}; what it can say stands in it as comments"
    found = f"{count_of(made.pictures, 'picture')}, a row each" if made.pictures else "the header and one example row"
    yield f"{made.sheet}: {found}"
    if made.to_fill:
        yield f"to fill in, in every row: {', '.join(made.to_fill)}"
    yield f"then: fal-batch plan {shlex.quote(str(made.campaign))}"


def gallery_line(made: Gallery) -> str:
    """What was written, in one line."""
    told = [count_of(made.rows, "row"), f"{made.saved:,} saved"]
    if made.missing:
        told.append(f"{count_of(made.missing, 'file')} not where saved (`fal-batch run` puts them back)")
    if made.left_out:
        told.append(f"{count_of(made.left_out, 'further row')} not shown: a page has so many at the most")
    return f"{made.path}: {', '.join(told)}"


def dataset_line(made: Dataset) -> str:
    """What a dataset holds now, in one line."""
    parts = ", ".join(f"{name} {count:,}" for name, count in made.splits.items())
    told = [f"{count_of(sum(made.splits.values()), 'sample')} ({parts or 'none'})", f"{made.added:,} new"]
    if made.removed:
        told.append(f"{made.removed:,} taken out or replaced")
    if made.left_out:
        told.append("left out: " + ", ".join(f"{count:,} {why}" for why, count in made.left_out.items()))
    return f"{made.path}: {', '.join(told)}"


def manifest_error_lines(exc: ManifestError) -> list[str]:
    """The first mistakes, what may explain them, and how many there are of each kind."""
    lines = [*str(exc).splitlines()]
    notes = [f"note: {note}" for note in exc.notes]
    kinds = exc.by_kind()
    if exc.count <= ISSUES_PRINTED_MAX:
        return [*lines, *notes, f"{count_of(exc.count, 'mistake')}; nothing was {exc.undone}"]
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda k: -k[1]))
    lines[-1] += ": --json lists all of them"
    return [*lines, *notes, f"{count_of(exc.count, 'mistake')}; nothing was {exc.undone}: {told}"]
