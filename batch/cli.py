"""The command line: parse, one library call, print, exit code. The only module that prints.

Data goes to stdout, talk and progress to stderr. Heavy imports happen inside the call, so `--help` and `status` stay
quick.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click

from batch import __version__, run
from batch.budget import usd
from batch.errors import ISSUES_PRINTED_MAX, Blocked, FalBatchError, InputError, LedgerFault, ManifestError
from batch.ledger import CampaignTotals
from batch.settings import OPTIONS, Option, Settings, load_settings
from batch.states import State

__all__ = ["main"]

EXIT_FAULT, EXIT_INPUT, EXIT_STOPPED, EXIT_INTERRUPTED = 1, 2, 4, 130

_WHERE = ("state", "local", "campaign", "endpoint", "json")
_HOW = (
    "concurrency",
    "limit",
    "max_cost",
    "max_duration",
    "start_timeout",
    "run_timeout",
    "history_delay",
    "wait",
    "outputs",
    "yes",
    "quiet",
)
_SHORT = {"concurrency": "-j", "yes": "-y", "quiet": "-q"}

Command = Callable[..., Any]


def _options(*names: str) -> Callable[[Command], Command]:
    """The click options of these settings; their values stay text, so that every source is read by the same parser."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = click.option(*_spelling(OPTIONS[name]), **_shape(OPTIONS[name]))(command)
        return command

    return add


def _spelling(option: Option) -> list[str]:
    return [option.flag, *([_SHORT[option.name]] if option.name in _SHORT else []), option.name]


def _shape(option: Option) -> dict[str, Any]:
    if option.is_flag:
        return {"is_flag": True, "default": None, "flag_value": "yes", "type": str, "help": option.help}
    shown = "" if option.default is None else f"  [default: {_shown_default(option)}]"
    return {"default": None, "metavar": option.metavar, "help": option.help + shown}


def _shown_default(option: Option) -> str:
    return f"{option.default:g}s" if isinstance(option.default, float) else str(option.default)


_MANIFEST = click.argument("manifest", type=click.Path(path_type=Path))


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 every row has its result, 1 a fault of fal-batch, 2 the input is wrong, 3 some jobs failed, "
    "4 stopped early, 5 some jobs are in doubt, 130 interrupted. The same command goes on where it was.",
)
@click.version_option(__version__, prog_name="fal-batch")
def cli() -> None:
    """Run a spreadsheet of generations on the fal queue and pay for each of them once."""


@cli.command("plan")
@_MANIFEST
@_options(*_WHERE, "concurrency")
def plan_command(manifest: Path, **flags: Any) -> int:
    """Check every cell of MANIFEST, count and price. Pays nothing, changes nothing."""
    return _plan(manifest, _settings(flags))


@cli.command("run")
@_MANIFEST
@_options(*_WHERE, *_HOW)
@click.option("--dry-run", "-n", is_flag=True, help="Only plan: check, count and price.")
def run_command(manifest: Path, dry_run: bool, **flags: Any) -> int:
    """Do MANIFEST: submit, follow and save every row. Typed again, it goes on where it was."""
    if dry_run:
        return _plan(manifest, _settings(flags))
    return _run(manifest, flags, None)


@cli.command("retry")
@_MANIFEST
@click.argument("row_ids", metavar="[ROW_ID]...", nargs=-1)
@click.option("--cause", metavar="CAUSE", help="Only jobs that failed for this cause, as the summary names it.")
@click.option(
    "--in-doubt",
    is_flag=True,
    help="Also submit jobs in doubt again that fal's history does not show; they may be paid twice.",
)
@_options(*_WHERE, *_HOW)
def retry_command(manifest: Path, row_ids: tuple[str, ...], cause: str | None, in_doubt: bool, **flags: Any) -> int:
    """Give failed and cancelled jobs of MANIFEST (or of some rows) a new attempt, then go on as `run` does."""
    return _run(manifest, flags, run.Again(row_ids=row_ids, cause=cause, in_doubt=in_doubt))


@cli.command("status")
@click.argument("manifest", type=click.Path(path_type=Path), required=False)
@_options(*_WHERE, "outputs", "history_delay")
def status_command(manifest: Path | None, **flags: Any) -> int:
    """Say where the rows of MANIFEST stand, or of every campaign in the ledger. Also while a run goes on."""
    settings = _settings(flags)
    reports = run.status(manifest, settings)
    if settings.json:
        _print_json([_status_json(report) for report in reports])
        return 0
    if not reports:
        _say(f"nothing has been run yet in {settings.state}")
    for report in reports:
        for line in _totals_lines(report, is_rehearsal=settings.local):
            click.echo(line)
    return 0


@cli.command("reconcile")
@_MANIFEST
@_options(*_WHERE, "history_delay", "quiet")
def reconcile_command(manifest: Path, **flags: Any) -> int:
    """Ask fal's history about the jobs of MANIFEST that are in doubt. Free; `run` does it by itself."""
    settings = _settings(flags)
    found = run.reconcile(manifest, settings, command=_command(), progress=_Quiet())
    if settings.json:
        _print_json({**dataclasses.asdict(found), "in_doubt": len(found.lines)})
    else:
        click.echo(
            f"{found.before} were in doubt: {found.adopted} found at fal, {found.absent} proved never taken, "
            f"{len(found.lines)} still in doubt"
        )
        for line in found.lines:
            click.echo(f"  {line}")
    return 5 if found.lines else 0


@cli.command("export")
@_MANIFEST
@click.argument("out", type=click.Path(path_type=Path), required=False)
@_options(*_WHERE, "outputs")
def export_command(manifest: Path, out: Path | None, **flags: Any) -> int:
    """Write the sheet of MANIFEST with its results beside the rows to OUT (a .csv). Also while a run goes on."""
    settings = _settings(flags)
    exported = run.export(manifest, out, settings)
    if settings.json:
        _print_json({"path": str(exported.path), "rows": exported.rows})
    else:
        click.echo(f"{exported.path}: {_count(exported.rows, 'row')}")
    return 0


@cli.command("serve")
@click.option("--port", type=click.IntRange(0, 65535), default=8319, show_default=True, help="0 takes a free one.")
@click.option("--runners", type=click.IntRange(1, 64), default=2, show_default=True, help="Jobs rendered at once.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the queue's own requests and files.  [default: queue/ in the state folder]",
)
def serve_command(port: int, runners: int, state: Path | None) -> int:
    """Be a fal queue on this machine, free of charge, for other programs and for trying things.

    It speaks fal's protocol, renders real preview videos and takes any key. It prints what to type in another terminal
    so that fal-batch talks to it. Ctrl-C ends it.
    """
    settings = _settings({})
    folder = state or settings.state / "queue"

    def ready(url: str) -> None:
        _say(f"the local queue answers at {url} and keeps its requests in {folder}; in another terminal:")
        for name in ("QUEUE", "REST", "CDN", "API"):
            click.echo(f"export FAL_BATCH_{name}_URL={url}")
        click.echo(f"export FAL_BATCH_STATE={settings.state / 'served'}")
        click.echo("export FAL_KEY=any")
        sys.stdout.flush()

    run.serve(port=port, state=folder, runners=runners, on_ready=ready)
    return 0


def main() -> NoReturn:
    """The entry point: runs a command and leaves with its exit code; only a fault of ours shows a traceback."""
    try:
        code = cli.main(prog_name="fal-batch", standalone_mode=False)
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except click.Abort:
        code = EXIT_INTERRUPTED
    except click.ClickException as exc:
        exc.show()
        code = EXIT_INPUT
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAULT
    except run.Declined:
        _say("not started: nothing was submitted")
        code = EXIT_STOPPED
    except FalBatchError as exc:
        code = _failed(exc)
    except Exception:  # noqa: BLE001 - the last resort: a fault of ours
        traceback.print_exc()
        _say("this is a fault of fal-batch, please report it; what was submitted is in the ledger and safe")
        code = EXIT_FAULT
    sys.exit(code if isinstance(code, int) else 0)


# --- a plan, a run ---


def _plan(manifest: Path, settings: Settings) -> int:
    quote = run.plan(manifest, settings)
    if settings.json:
        facts = {"campaign": quote.campaign, **dataclasses.asdict(quote.planned), "carried": quote.carried}
        _print_json(facts)
    else:
        for line in _plan_lines(quote, settings):
            click.echo(line)
    return 0


def _run(manifest: Path, flags: Mapping[str, Any], again: run.Again | None) -> int:
    settings = _settings(flags)
    progress = _Quiet() if settings.quiet else _Bar() if sys.stderr.isatty() else _Lines()

    def confirm(quote: run.Quote) -> bool:
        if not settings.quiet:
            for line in _plan_lines(quote, settings):
                _say(line)
        is_person = sys.stdin.isatty() and sys.stderr.isatty()
        if settings.yes or settings.local or not is_person:
            return True
        return click.confirm(f"Submit {_count(quote.submits, 'job')} for up to {usd(quote.estimate_micros)}?", err=True)

    report = run.run(manifest, settings, command=_command(), confirm=confirm, progress=progress, again=again)
    if settings.json:
        _print_json(_report_json(report))
    for line in _end_lines(report, manifest, flags, is_rehearsal=settings.local):
        if report.exit_code or not settings.quiet:
            _say(line)
    return report.exit_code


class _Quiet:
    """No progress: --quiet."""

    def begin(self, totals: CampaignTotals) -> None: ...

    def moved(self, job_id: int, was: State, now: State) -> None: ...

    def say(self, message: str) -> None: ...

    def running(self, count: int) -> None: ...

    def end(self) -> None: ...


class _Lines(_Quiet):
    """No terminal: only what is worth a line in a log."""

    def say(self, message: str) -> None:
        _say(message)


class _Bar:
    """One line on a terminal: how many are submitted, running, saved, failed, and the time left."""

    def __init__(self) -> None:
        self._counts: dict[State, int] = {}
        self._running = 0
        self._bar: Any = None
        self._note = ""

    def begin(self, totals: CampaignTotals) -> None:
        from tqdm import tqdm

        self._counts = {
            State.PLANNED: totals.not_started,
            State.WAITING: totals.waiting,
            State.SUBMITTED: totals.in_flight,
            State.COMPLETED: totals.paid_fetch_later,
            State.FETCHED: totals.fetched,
            State.FAILED: totals.failed,
            State.CANCELLED: totals.cancelled,
            State.IN_DOUBT: totals.in_doubt,
        }
        shape = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]{postfix}"
        self._bar = tqdm(
            total=totals.rows,
            initial=self._saved(),
            file=sys.stderr,
            dynamic_ncols=True,
            bar_format=shape,
            ascii="NO_COLOR" in os.environ or None,
        )
        self._show()

    def moved(self, job_id: int, was: State, now: State) -> None:
        self._counts[was] = self._counts.get(was, 0) - 1
        self._counts[now] = self._counts.get(now, 0) + 1
        if self._bar is not None:
            self._note = ""
            self._bar.n = self._saved()
            self._show()

    def say(self, message: str) -> None:
        self._note = message
        if self._bar is not None:
            self._show()

    def running(self, count: int) -> None:
        self._running = count
        if self._bar is not None:
            self._show()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _saved(self) -> int:
        return self._counts.get(State.FETCHED, 0)

    def _show(self) -> None:
        counts = self._counts
        submitted = counts.get(State.SUBMITTING, 0) + counts.get(State.SUBMITTED, 0)
        words = [
            f"{submitted} submitted",
            f"{self._running} running",
            f"{counts.get(State.FETCHED, 0)} saved",
            f"{counts.get(State.FAILED, 0) + counts.get(State.CANCELLED, 0)} failed",
        ]
        if counts.get(State.IN_DOUBT, 0):
            words.append(f"{counts[State.IN_DOUBT]} in doubt")
        self._bar.set_postfix_str(", ".join(words) + (f"; {self._note}" if self._note else ""))


# --- words ---


def _plan_lines(quote: run.Quote, settings: Settings) -> list[str]:
    planned, shared = quote.planned, quote.planned.rows - quote.planned.jobs
    is_mixed = 0 < planned.new < planned.to_submit
    lines = [
        f"{quote.campaign}: {_count(planned.rows, 'row')}, {_count(planned.jobs, 'job')}"
        + (f" ({_count(shared, 'row')} sharing one with another row)" if shared else "")
        + f": {planned.to_submit} to submit"
        + (f" ({planned.new} of them not seen before)" if is_mixed else "")
        + f", {planned.under_way} under way, {planned.done} done, {planned.failed} failed"
    ]
    if quote.carried:
        lines.append(f"not sent, carried along: {', '.join(quote.carried)}")
    if planned.to_submit:
        price = f"up to {usd(quote.estimate_micros)}"
        if quote.submits < planned.to_submit:
            price += f" for {quote.submits} of them (--limit)"
        if planned.unpriced:
            price += f" and {_count(planned.unpriced, 'job')} without a known price"
        free = "; this is a rehearsal and costs nothing" if settings.local else ""
        lines.append(f"price: {price}, {settings.concurrency} at once{free}")
    if quote.is_first:
        lines.append(f"there is no ledger yet: what is paid for is remembered in {settings.state}")
    return lines


def _totals_lines(report: run.StatusReport | run.RunReport, *, is_rehearsal: bool) -> list[str]:
    name, totals, outputs, doubts = report.campaign, report.totals, report.outputs, report.doubts
    lines = [f"{name}: {_count(totals.rows, 'row')}, {totals.fetched} saved"]
    parts = (
        ("paid, fetch later", totals.paid_fetch_later),
        ("failed", totals.failed),
        ("cancelled", totals.cancelled),
        ("in doubt", totals.in_doubt),
        ("in flight", totals.in_flight),
        ("waiting", totals.waiting),
        ("not started", totals.not_started),
    )
    lines[0] += "".join(f", {count} {words}" for words, count in parts if count)
    lines += [f"  failed: {count} {cause}" for cause, count in totals.failed_by_cause.items()]
    lines += [f"    {line}" for line in report.failures]
    if totals.failed > len(report.failures):
        lines.append(f"    … and {totals.failed - len(report.failures)} more, in the exported sheet")
    lines += [f"  in doubt: {line}" for line in doubts[:ISSUES_PRINTED_MAX]]
    if totals.superseded_open or totals.superseded_in_doubt:
        lines.append(
            f"  no row wants them any more: {totals.superseded_open} accepted and followed, "
            f"{totals.superseded_in_doubt} in doubt"
        )
    if is_rehearsal:
        return [*lines, f"  a rehearsal: fal would have billed {usd(totals.settled_micros)}", f"  files: {outputs}"]
    money = f"  money: {usd(totals.settled_micros)} spent"
    if totals.reserved_micros:
        money += f", {usd(totals.reserved_micros)} reserved"
    if totals.in_doubt_micros:
        money += f", {usd(totals.in_doubt_micros)} in doubt"
    if totals.given_up:
        money += f", perhaps {usd(totals.given_up_micros)} for {_count(totals.given_up, 'submit')} given up in doubt"
    if totals.unpriced_attempts:
        money += f", {totals.unpriced_attempts} attempts of unknown price"
    return [*lines, money, f"  files: {outputs}"]


def _end_lines(report: run.RunReport, manifest: Path, flags: Mapping[str, Any], *, is_rehearsal: bool) -> list[str]:
    lines = []
    if report.ending is None:
        lines.append("nothing to do: no request was made")
    elif report.ending.stop is not None:
        lines.append(f"stopped: {report.ending.stop.message}")
    if report.ending is not None:
        lines += report.ending.notes
    lines += _totals_lines(report, is_rehearsal=is_rehearsal)
    return [*lines, *_next_lines(report, manifest, flags)]


def _next_lines(report: run.RunReport, manifest: Path, flags: Mapping[str, Any]) -> list[str]:
    """The exact command to go on with. Never one that would pay again by being typed again: that is `run`."""
    go_on, retry = _typed("run", manifest, flags), _typed("retry", manifest, flags)
    if report.exit_code in {EXIT_STOPPED, EXIT_INTERRUPTED}:
        return [f"to go on: {go_on}"]
    if report.exit_code == 5:
        return [f"to look again: {go_on}", f"to submit them again and perhaps pay twice: {retry} --in-doubt"]
    if report.exit_code == 3:
        return [f"to try the failed ones again: {retry}"]
    return []


def _typed(verb: str, manifest: Path, flags: Mapping[str, Any]) -> str:
    """A command line with the same options."""
    words = ["fal-batch", verb, str(manifest)]
    for name, value in flags.items():
        if value is not None:
            words += [OPTIONS[name].flag] if OPTIONS[name].is_flag else [OPTIONS[name].flag, str(value)]
    return shlex.join(words)


def _failed(exc: FalBatchError) -> int:
    if isinstance(exc, ManifestError):
        _say(str(exc))
        _say(f"{_count(exc.count, 'mistake')}; nothing was submitted")
        return EXIT_INPUT
    _say(f"error: {exc}")
    if isinstance(exc, InputError):
        return EXIT_INPUT
    if isinstance(exc, Blocked):
        return EXIT_STOPPED
    if isinstance(exc, LedgerFault):
        traceback.print_exception(exc)
        _say("this is a fault of fal-batch, please report it; what was submitted is in the ledger and safe")
    return EXIT_FAULT


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _settings(flags: Mapping[str, Any]) -> Settings:
    return load_settings(flags, environ=os.environ, cwd=Path.cwd())


def _command() -> str:
    return shlex.join(["fal-batch", *sys.argv[1:]])


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def _status_json(report: run.StatusReport) -> dict[str, Any]:
    return {
        "campaign": report.campaign,
        **dataclasses.asdict(report.totals),
        "outputs": str(report.outputs),
        "doubts": list(report.doubts),
    }


def _report_json(report: run.RunReport) -> dict[str, Any]:
    stop = None if report.ending is None else report.ending.stop
    return {
        "campaign": report.campaign,
        **dataclasses.asdict(report.totals),
        "outputs": str(report.outputs),
        "submitted": 0 if report.ending is None else report.ending.submitted,
        "stopped": None if stop is None else {"cause": stop.cause, "message": stop.message},
        "exit_code": report.exit_code,
    }
