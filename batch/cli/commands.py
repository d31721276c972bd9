"""One function a command: parse, one library call, print, exit code.

Heavy imports happen inside the call, so `--help` and `status` stay quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from batch import __version__
from batch.cli.options import HOW, READS, ROWS, WHERE, options
from batch.cli.standing import Standing, stands, states_of
from batch.errors import Blocked, Declined, FalBatchError, InputError, LedgerFault, ManifestError
from batch.settings import Settings, load_settings
from batch.states import State

if TYPE_CHECKING:
    from batch import run, views
    from batch.ledger import JobLine
    from batch.local import FaultPlan

__all__ = ["cli", "entry", "main"]

EXIT_FAULT, EXIT_INPUT, EXIT_STOPPED, EXIT_IN_DOUBT, EXIT_INTERRUPTED = 1, 2, 4, 5, 130

REPORT_IT = "this is a fault of fal-batch, please report it with the lines above; what was submitted is in the ledger"
WATCH_S = 2.0

_MANIFEST = click.argument("manifest", type=click.Path(path_type=Path))
_SOME_MANIFEST = click.argument("manifest", type=click.Path(path_type=Path), required=False)
_ROW_IDS = click.argument("row_ids", metavar="[ROW_ID]...", nargs=-1)
_DRY_RUN = click.option("--dry-run", "-n", is_flag=True, help="Only say what would be done.")


class _InOrder(click.Group):
    """Its help lists the commands as one comes to need them, not by the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 every row has its result, 1 a fault of fal-batch, 2 the input is wrong, 3 some jobs failed, "
    "4 stopped early, 5 some jobs are in doubt, 130 interrupted. The same command goes on where it was.",
)
@click.version_option(__version__, prog_name="fal-batch")
def cli() -> None:
    """Run a spreadsheet of generations on the fal queue and pay for each of them once.

    MANIFEST is a sheet (.csv, .xlsx) whose header is the endpoint's fields, or a campaign (.yaml) that names one.
    `fal-batch init` makes one to start from; `fal-batch plan MANIFEST` checks it, and pays nothing.
    """


@cli.command("init", short_help="Make a campaign to start from: a commented YAML file and a sheet.")
@click.argument("where", metavar="[DIR|SHEET]", type=click.Path(path_type=Path), default=".")
@click.option("--xlsx", "as_workbook", is_flag=True, help="An Excel workbook with drop-downs and notes, not a CSV.")
@click.option(
    "--images",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="A row for each picture in FOLDER. Without it: in DIR or its images/, if there are any.",
)
@options("endpoint", "state", "local", "json")
def init_command(where: Path, as_workbook: bool, images: Path | None, **flags: Any) -> int:
    """Make a campaign in DIR to start from: a YAML file that explains itself, and a sheet with the endpoint's fields.

    The sheet is shots.csv, or the file that is named (.csv, .tsv, .xlsx). It has one example row, or a row for each
    picture, its prompt left to fill in. Nothing that is there already is replaced.
    """
    from batch import init
    from batch.cli import documents, words

    settings = _settings(flags)
    made = init.start(
        where,
        endpoint_id=settings.endpoint,
        images=images,
        as_workbook=as_workbook,
        pinned_dir=settings.pinned,
    )
    if settings.json:
        _print_json(documents.started_of(made))
    else:
        _print(words.started_lines(made))
    return 0


@cli.command("plan", short_help="Check every cell, count and price; pays nothing.")
@_MANIFEST
@click.option("--requests", type=click.IntRange(0), default=1, show_default=True, help="Show so many requests whole.")
@options(*WHERE, *READS, "concurrency", "limit", "max_cost")
def plan_command(manifest: Path, requests: int, **flags: Any) -> int:
    """Check every cell of MANIFEST, count and price. Pays nothing, changes nothing."""
    return _plan(manifest, _settings(flags), requests)


@cli.command("run", short_help="Submit, follow and save every row; goes on when typed again.")
@_MANIFEST
@_DRY_RUN
@options(*HOW)
def run_command(manifest: Path, dry_run: bool, **flags: Any) -> int:
    """Do MANIFEST: submit, follow and save every row.

    Typed again, it goes on where it was: nothing is paid for twice. On a terminal it asks before it spends.
    """
    return _plan(manifest, _settings(flags), 1) if dry_run else _run(manifest, flags, None)


@cli.command("status", short_help="Say where the rows stand, also while a run goes on.")
@_SOME_MANIFEST
@click.option("--watch", "-w", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@click.option("--settings", "shows_settings", is_flag=True, help="Show every setting and where it comes from instead.")
@options(*WHERE, "outputs", "history_delay")
def status_command(manifest: Path | None, watch: bool, shows_settings: bool, **flags: Any) -> int:
    """Say where the rows of MANIFEST stand, or of every campaign in the ledger. Also while a run goes on."""
    settings = _settings(flags)
    if shows_settings:
        return _show_settings(settings)
    while watch:
        if sys.stdout.isatty() and not settings.json:
            click.clear()
        _status(manifest, settings, flags)
        sys.stdout.flush()
        time.sleep(WATCH_S)
    return _status(manifest, settings, flags)


@cli.command("jobs", short_help="List every row with its job, cost and file or cause.")
@_MANIFEST
@_ROW_IDS
@click.option(
    "--only",
    "states",
    metavar="STATE",
    multiple=True,
    type=Standing(),
    help="Only rows whose job stands there: a word of `status`, or "
    f"{', '.join(state.value for state in State)}. Can be given several times.",
)
@click.option("--cause", "causes", metavar="CAUSE", multiple=True, help="Only with this cause, as `status` names it.")
@click.option("--superseded", is_flag=True, help="The jobs that no row wants any more, instead of the sheet's rows.")
@options(*WHERE)
def jobs_command(
    manifest: Path,
    row_ids: tuple[str, ...],
    states: tuple[str, ...],
    causes: tuple[str, ...],
    superseded: bool,
    **flags: Any,
) -> int:
    """List the rows of MANIFEST with their jobs: where each stands, what it cost, its file or what went wrong.

    It shows the sheet as the last run read it. With ROW_IDs only those rows.
    """
    from batch import views

    settings = _settings(flags)
    found = views.jobs(
        manifest, settings, states=states_of(states), causes=causes, row_ids=row_ids, superseded=superseded
    )
    if states:
        found = (line for line in found if any(stands(line, name) for name in states))
    return _list(found, settings, otherwise=lambda: _no_such_cause(manifest, settings, causes))


@cli.command("retry", short_help="Give failed and cancelled jobs a new attempt.")
@_MANIFEST
@_ROW_IDS
@click.option("--cause", metavar="CAUSE", help="Only jobs that ended for this cause, as `status` names it.")
@click.option(
    "--in-doubt",
    is_flag=True,
    help="Instead those in doubt that fal's history does not show. They may be paid for twice.",
)
@_DRY_RUN
@options(*HOW)
def retry_command(
    manifest: Path, row_ids: tuple[str, ...], cause: str | None, in_doubt: bool, dry_run: bool, **flags: Any
) -> int:
    """Give failed and cancelled jobs of MANIFEST a new attempt, and follow them. Nothing else is submitted.

    With ROW_IDs only those rows, each by its id or by a file name of its own. A new attempt is paid for like any other.
    """
    from batch import run, views

    if not dry_run:
        return _run(manifest, flags, run.Again(row_ids=row_ids, cause=cause, in_doubt=in_doubt))
    states = {State.IN_DOUBT} if in_doubt else {State.FAILED, State.CANCELLED}
    settings = _settings(flags)
    causes = () if cause is None else (cause,)
    found = views.jobs(manifest, settings, states=states, causes=causes, row_ids=row_ids)
    return _list(found, settings, otherwise=lambda: _no_such_cause(manifest, settings, causes))


@cli.command("cancel", short_help="Call off what fal has not finished.")
@_MANIFEST
@_ROW_IDS
@click.option(
    "--shared", is_flag=True, help="Also what other rows or campaigns want too: theirs are called off with it."
)
@_DRY_RUN
@options(*WHERE, "max_duration", "no_download", "outputs", "quiet", "verbose")
def cancel_command(manifest: Path, row_ids: tuple[str, ...], shared: bool, dry_run: bool, **flags: Any) -> int:
    """Call off what fal has of MANIFEST and has not finished, and wait until it has said how each ended.

    With ROW_IDs only those rows. A job that fal is working on already may still finish, and be paid for: then it is
    saved like any other. What is not submitted yet is not touched. A run at work has to be stopped first (Ctrl-C).
    """
    from batch import run, views
    from batch.cli import documents, words
    from batch.cli.progress import progress_for

    settings = _settings(flags)
    if dry_run:
        meant = [views.jobs(manifest, settings, states={State.SUBMITTED}, row_ids=row_ids)]
        if not row_ids:
            meant.append(views.jobs(manifest, settings, states={State.SUBMITTED}, superseded=True))
        return _list(itertools.chain(*meant), settings)
    progress = progress_for(settings, is_terminal=sys.stderr.isatty())
    command = _command()
    found = run.cancel(manifest, settings, row_ids=row_ids, command=command, progress=progress, include_shared=shared)
    if settings.json:
        _print_json(documents.call_off_of(found))
    else:
        _print(words.call_off_lines(found))
    return found.exit_code


@cli.command("reconcile", short_help="Ask fal's history about what is in doubt.")
@_SOME_MANIFEST
@options(*WHERE, "history_delay", "wait", "quiet")
def reconcile_command(manifest: Path | None, **flags: Any) -> int:
    """Ask fal's history about what is in doubt or was given up, of MANIFEST or of every campaign. Free.

    `run` does it by itself. What was taken is found, what was not is proved as soon as that can be; the table says
    which. Exit code 5 when something is still in doubt.
    """
    from batch import run
    from batch.cli import documents, words
    from batch.cli.progress import Quiet, progress_for

    settings = _settings(flags)
    progress = progress_for(settings, is_terminal=False) if settings.wait else Quiet()
    found = run.reconcile(manifest, settings, command=_command(), progress=progress)
    if settings.json:
        _print_json(documents.reconciled_of(found))
    else:
        _print(words.reconciled_lines(found))
    return found.exit_code


@cli.command("export", short_help="Write the sheet with its results beside the rows.")
@_MANIFEST
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--wide", is_flag=True, help="All takes and models of a row in one line: result_path, result_path_2, …")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["videofolder", "imagefolder", "webdataset", "parquet"]),
    help="Instead a dataset of this kind, in the folder OUT: files with a list, or shards.",
)
@click.option(
    "--split", metavar="NAME=SHARE,…", help="Parts of a dataset: train=0.9,test=0.1. A row stays in its part."
)
@click.option("--split-by", metavar="COLUMN", help="Parts of a dataset, named after what stands in a column.")
@click.option("--shard-size", metavar="SIZE", help="How large a shard gets.  [default: 500MB]")
@click.option("--with-source", is_flag=True, help="The local pictures that went in go into the dataset too.")
@click.option("--paths", is_flag=True, help="With --as parquet: the paths of the files, not their bytes.")
@options(*WHERE, *ROWS, "outputs", "quiet")
def export_command(manifest: Path, out: Path | None, wide: bool, kind: str | None, **flags: Any) -> int:
    """Write the sheet of MANIFEST with its results beside the rows to OUT, or with --as a dataset.

    What OUT is called says what it becomes: .csv, .tsv, .xlsx, .jsonl or .parquet (.csv, .tsv and .jsonl also with
    .gz). Without OUT: results.csv among the campaign's files. Also while a run goes on. What comes out beside the sheet
    can go in again.
    """
    from batch import views
    from batch.cli import documents, words

    names = ("split", "split_by", "shard_size", "with_source", "paths")
    how = {name: flags.pop(name) for name in names}
    settings = _settings(flags)
    if kind is not None:
        return _export_dataset(manifest, out, settings, kind, is_wide=wide, **how)
    asked = next((name for name, value in how.items() if value), None)
    if asked is not None:
        raise InputError(f"--{asked.replace('_', '-')}: that is of a dataset; say which kind with --as")
    exported = views.export(manifest, out, settings, is_wide=wide)
    if settings.json:
        _print_json(documents.exported_of(exported))
    else:
        click.echo(f"{exported.path}: {words.count_of(exported.rows, 'row')}, {exported.saved:,} saved")
        for note in exported.notes:
            _say(note)
    return 0


@cli.command("gallery", short_help="Write a page to look through the results and pick from them.")
@_MANIFEST
@click.argument("out_dir", type=click.Path(path_type=Path), required=False)
@options(*WHERE, *ROWS, "outputs", "quiet")
def gallery_command(manifest: Path, out_dir: Path | None, **flags: Any) -> int:
    """Write a page to look through the results of MANIFEST, and to pick from them. Also while a run goes on.

    It opens in a browser as a file, and asks no network for anything. What you pick there it saves as sheets that `run`
    takes. Without OUT_DIR it goes among the campaign's files and points at them; with it into that folder, the files
    beside it (hard links where possible), to be moved or sent. Typed again, only what is new is made.
    """
    from batch import views
    from batch.cli import documents, words
    from batch.cli.progress import Steps

    settings = _settings(flags)
    progress = Steps("posters", is_shown=sys.stderr.isatty() and not settings.quiet)
    made = views.gallery(manifest, out_dir, settings, progress=progress)
    if settings.json:
        _print_json(documents.gallery_of(made))
    else:
        click.echo(words.gallery_line(made))
    return 0


@cli.command("endpoint", short_help="Show what an endpoint takes; fetch and pin its document.")
@click.argument("what", metavar="[ID|FILE]", required=False)
@click.option("--template", "as_template", is_flag=True, help="Print the header of a sheet for it, and an example row.")
@options("state", "local", "json")
def endpoint_command(what: str | None, as_template: bool, **flags: Any) -> int:
    """Show what an endpoint takes: fields, types, defaults, limits and price. Free.

    The OpenAPI document of ID is fetched from fal (no key is needed), that of FILE is read, and either is pinned in the
    state folder: from then on sheets are checked by it. With --local nothing is fetched, and ID is looked up among what
    is known. Without ID: what is known.
    """
    from batch import pin
    from batch.cli import schema
    from batch.pricing import Prices

    settings = _settings(flags)
    if what is None:
        if as_template:
            raise InputError("--template: of which endpoint? `fal-batch endpoint` lists those that are known")
        found = pin.known(settings)
        if settings.json:
            _print_json([schema.known_endpoint_of(endpoint) for endpoint in found])
        else:
            _print(schema.known_endpoint_lines(found))
        return 0
    described = pin.describe(what, settings)
    if settings.json:
        _print_json(schema.endpoint_of(described, Prices(settings).basis(described.endpoint.id)))
    elif as_template:
        _print(schema.template_lines(described))
    else:
        _print(schema.endpoint_lines(described, Prices(settings).basis(described.endpoint.id)))
    for line in schema.pinned_lines(described):
        _say(line)
    return 0


@cli.command("serve", short_help="Be a fal queue on this machine, free of charge.")
@click.option("--port", type=click.IntRange(0, 65535), default=8319, show_default=True, help="0 takes a free one.")
@click.option("--runners", type=click.IntRange(1, 64), default=2, show_default=True, help="Jobs rendered at once.")
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the queue's own requests and files.  [default: queue/ in the state folder]",
)
@click.option(
    "--faults",
    metavar="PLAN",
    help="Let things go wrong as they do at fal: a YAML file (manifests/faults.yaml has every fault), or seed=NUMBER.",
)
def serve_command(port: int, runners: int, state: Path | None, faults: str | None) -> int:
    """Be a fal queue on this machine, free of charge, for other programs and for trying things.

    It speaks fal's protocol, renders real preview videos and takes any key. It prints what to type in another terminal
    so that fal-batch talks to it. Ctrl-C ends it.

    With --faults it prints the plan first. GET /local/faults tells what has struck so far, PUT /local/faults takes
    another plan (an empty one ends it all), GET /local/accepted counts the submits it took.
    """
    from batch import run

    settings = _settings({})
    folder = state or settings.state / "queue"

    def ready(url: str) -> None:
        _say(f"the local queue answers at {url} and keeps its requests in {folder}; in another terminal:")
        for name in ("QUEUE", "REST", "CDN", "API"):
            click.echo(f"export FAL_BATCH_{name}_URL={url}")
        click.echo(f"export FAL_BATCH_STATE={settings.state / 'served'}")
        click.echo("export FAL_KEY=any")
        sys.stdout.flush()

    def planned(plan: FaultPlan) -> None:
        _say(f"what goes wrong, by {faults}, seed {plan.seed} (the same seed, the same faults):")
        rows = list(plan.rows())
        for name, often, meaning in rows:
            _say(f"  {name:<{max(len(row[0]) for row in rows)}}  {often:>6}  {meaning}")
        if not rows:
            _say("  nothing")

    run.serve(
        port=port,
        state=folder,
        runners=runners,
        on_ready=ready,
        faults=faults,
        on_plan=planned,
        pinned_dir=settings.pinned,
    )
    return 0


@cli.command("doctor", short_help="Check key, hosts, ledger and disk; pays nothing.")
@options("state", "local", "json", "outputs", "history_delay")
def doctor_command(**flags: Any) -> int:
    """Say whether everything that a run needs is there and well. Pays nothing, changes nothing.

    A line for each thing: ok, a note worth knowing, or a trouble that keeps a run from its work (exit code 4), with
    what was found and what to do. Also while a run goes on. With --local, fal is left out.
    """
    from batch import doctor
    from batch.cli import documents, words

    settings = _settings(flags)
    findings = doctor.examine(settings)
    if settings.json:
        _print_json([documents.finding_of(finding) for finding in findings])
    else:
        _print(words.finding_line(finding) for finding in findings)
        _say(words.findings_summary(findings))
    return EXIT_STOPPED if any(finding.verdict is doctor.Verdict.TROUBLE for finding in findings) else 0


@cli.command("completion", short_help="Make a shell complete commands and options.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> int:
    """Print what makes SHELL complete fal-batch's commands and options.

    bash, zsh: add `eval "$(fal-batch completion bash)"` (or zsh) to ~/.bashrc (~/.zshrc). fish: save it as
    ~/.config/fish/completions/fal-batch.fish.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "the choices are those that click knows"
    click.echo(found(cli, {}, "fal-batch", "_FAL_BATCH_COMPLETE").source())
    return 0


def main() -> NoReturn:
    """Run a command and leave with its exit code; only a fault of ours shows a traceback."""
    if sys.stdout is None or sys.stderr is None:  # closed by `>&-`
        nowhere = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    _Printed.as_json = False  # until the settings say so
    try:
        code = cli.main(prog_name="fal-batch", complete_var="_FAL_BATCH_COMPLETE", standalone_mode=False)
    except click.exceptions.Exit as exc:
        code = exc.exit_code
    except click.Abort:
        code = EXIT_INTERRUPTED
    except click.ClickException as exc:
        code = EXIT_INPUT
        if "--json" in sys.argv:
            _print_json({"error": exc.format_message(), "exit_code": code})
        exc.show()
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except SystemExit:  # click's word for a broken pipe: whoever read us has seen enough
        code = 0
    except Declined:
        _say("not started: nothing was submitted")
        code = EXIT_STOPPED
    except FalBatchError as exc:
        code = _failed(exc)
    except Exception as exc:  # noqa: BLE001 - the last resort
        code = _fault(exc)
    sys.exit(code if isinstance(code, int) else 0)


def entry() -> NoReturn:
    """As `main`, for a process of its own: it ends without waiting for threads that a run has left behind. A preview
    that is being rendered is no reason to keep somebody who has pressed Ctrl-C; the ledger is safe at any moment."""
    try:
        main()
    except SystemExit as exc:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(exc.code if isinstance(exc.code, int) else EXIT_FAULT)


# --- what commands share ---


def _plan(manifest: Path, settings: Settings, requests: int) -> int:
    from batch import views
    from batch.cli import documents, words

    quote = views.plan(manifest, settings, requests=requests)
    if settings.json:
        _print_json(documents.plan_of(quote, settings))
    else:
        _print(words.plan_lines(quote, settings))
    return 0


def _run(manifest: Path, flags: Mapping[str, Any], again: run.Again | None) -> int:
    from batch import run
    from batch.cli import documents, words
    from batch.cli.progress import progress_for

    settings = _settings(flags)
    progress = progress_for(settings, is_terminal=sys.stderr.isatty())

    def confirm(quote: views.Quote) -> bool:
        for line in quote.notes if settings.quiet else words.plan_lines(quote, settings):
            _say(line)
        is_person = sys.stdin.isatty() and sys.stderr.isatty()
        if settings.yes or settings.local or not is_person:
            return True
        return click.confirm(words.question(quote), err=True)

    report = run.run(manifest, settings, command=_command(), confirm=confirm, progress=progress, again=again)
    if settings.json:
        _print_json(documents.run_of(report))
    for line in words.end_lines(report, manifest, flags, is_rehearsal=settings.local):
        if report.exit_code or not settings.quiet:
            _say(line)
    return report.exit_code


def _export_dataset(
    manifest: Path,
    out: Path | None,
    settings: Settings,
    kind: str,
    *,
    is_wide: bool,
    split: str | None,
    split_by: str | None,
    shard_size: str | None,
    with_source: bool,
    paths: bool,
) -> int:
    from batch import views
    from batch.cli import documents, words
    from batch.cli.progress import Steps
    from batch.export.datasets import Form, size_of

    if out is None:
        raise InputError(f"--as {kind}: name the folder for it, such as {manifest.stem}-{kind}")
    if is_wide:
        raise InputError("--wide is of a sheet; a dataset has a sample for each file")
    if split is not None and split_by is not None:
        raise InputError("--split and --split-by both say which part a row is in; use one of them")
    if paths and kind != "parquet":
        raise InputError(f"--paths is of --as parquet; a {kind} has the files themselves")
    if shard_size is not None and kind.endswith("folder"):
        raise InputError(f"--shard-size: a {kind} has no shards, but a file for each sample")
    form = Form(kind=kind, has_sources=with_source, has_bytes=not paths)
    if shard_size is not None:
        form = dataclasses.replace(form, shard_bytes=size_of(shard_size))
    progress = Steps("samples", is_shown=sys.stderr.isatty() and not settings.quiet)
    made = views.dataset(manifest, out, settings, form, split=split, split_by=split_by, progress=progress)
    if settings.json:
        _print_json(documents.dataset_of(made))
    else:
        click.echo(words.dataset_line(made))
    return 0


def _status(manifest: Path | None, settings: Settings, flags: Mapping[str, Any]) -> int:
    from batch import views
    from batch.cli import documents, words

    reports = views.status(manifest, settings)
    if settings.json:
        _print_json([documents.status_of(report) for report in reports])
        return 0
    if not reports:
        _say(f"nothing has been run yet in {settings.state}{views.rehearsal_hint(settings)}")
    for report in reports:
        _print(words.status_lines(report, is_rehearsal=settings.local, flags=flags))
    return 0


def _no_such_cause(manifest: Path, settings: Settings, causes: Iterable[str]) -> str | None:
    """What to say where no row has what was asked for: which causes there are, if one of these is none of them."""
    from batch import views

    known = views.causes(manifest, settings)
    wrong = [repr(cause) for cause in causes if cause not in known]
    return (
        f"no row has the cause {', '.join(wrong)}; the causes there are: {', '.join(known) or 'none'}"
        if wrong
        else None
    )


def _list(found: Iterable[JobLine], settings: Settings, *, otherwise: Callable[[], str | None] = lambda: None) -> int:
    """A table a person reads, or a JSON array, written as it is read: a million rows need no memory. Where there is
    nothing, `otherwise` may know why."""
    from batch.cli import documents, words

    count = 0
    for count, line in enumerate(found, start=1):
        if settings.json:
            click.echo(
                ("[\n " if count == 1 else ",\n ") + json.dumps(documents.job_of(line), ensure_ascii=False), nl=False
            )
        else:
            if count == 1:
                click.echo(words.jobs_header())
            click.echo(words.job_line(line))
    if settings.json:
        click.echo("\n]" if count else "[]")
    else:
        _say(words.count_of(count, "row"))
    why = None if count else otherwise()
    if why is not None:
        _say(why)
    return 0


def _show_settings(settings: Settings) -> int:
    from batch.cli import documents

    lines = documents.settings_of(settings)
    if settings.json:
        _print_json(lines)
        return 0
    for line in lines:
        click.echo(f"{line['name']:<15} {line['value'] or '-':<38} {line['source']}".rstrip())
    return 0


def _fault(exc: Exception) -> int:
    """What nobody expected: a disk that is full is the world's fault, anything else ours."""
    has_trouble = isinstance(exc, OSError) and exc.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}
    if has_trouble or str(exc) == "database or disk is full":  # SQLite's words, of the queue inside the program
        _say(f"{_styled('error:')} {exc}; what was submitted is in the ledger, and the same command goes on")
        return EXIT_STOPPED
    traceback.print_exception(exc)
    _say(REPORT_IT)
    return EXIT_FAULT


def _failed(exc: FalBatchError) -> int:
    from batch.cli import documents, words

    code = EXIT_INPUT if isinstance(exc, InputError) else EXIT_STOPPED if isinstance(exc, Blocked) else EXIT_FAULT
    if isinstance(exc, ManifestError) and exc.is_interrupted:
        code = EXIT_INTERRUPTED
    if "--json" in sys.argv or _Printed.as_json:
        _print_json(documents.error_of(exc, code))
    if isinstance(exc, ManifestError):
        for line in words.manifest_error_lines(exc):
            _say(line)
        return code
    _say(f"{_styled('error:')} {exc}")
    if isinstance(exc, LedgerFault):
        traceback.print_exception(exc)
        _say(REPORT_IT)
    return code


class _Printed:
    """How this process prints: known once the settings are."""

    as_json = False


def _settings(flags: Mapping[str, Any]) -> Settings:
    settings = load_settings(flags, environ=os.environ, cwd=Path.cwd())
    _Printed.as_json = settings.json
    return settings


def _command() -> str:
    return shlex.join(["fal-batch", *sys.argv[1:]])


def _styled(text: str) -> str:
    """Red on a terminal, unless NO_COLOR (no-color.org) is set."""
    has_color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, fg="red", bold=True) if has_color else text


def _say(line: str) -> None:
    click.echo(line, err=True)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
