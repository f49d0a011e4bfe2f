"""`streaming-encodec corpus`: many recordings to codes, on all cores, a cluster, or a graphics card."""

from __future__ import annotations

import random
import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streaming_encodec.cli.shared.console import complain, minutes, note, print_facts, print_json
from streaming_encodec.cli.shared.corpus_progress import corpus_progress
from streaming_encodec.cli.shared.loading import ModelOption, note_preview
from streaming_encodec.cli.shared.options import MOST_THREADS, BandwidthOption, EngineOption, JsonOption
from streaming_encodec.model.checkpoints.named import DEFAULT_MODEL

if TYPE_CHECKING:
    from streaming_encodec.corpus.encode import EncodedCorpus, Plan
    from streaming_encodec.corpus.jobs import Executor
    from streaming_encodec.corpus.verify import Verified

_MOST_COMPLAINTS = 20


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE", help="A folder of sound files, a list (.txt, .csv, .tsv, .jsonl), or WebDataset tars."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    model: ModelOption = DEFAULT_MODEL,
    bandwidth: BandwidthOption = None,
    engine: EngineOption = "auto",
    output: Annotated[
        str, typer.Option("--format", "-f", metavar="NAME", help="ecdc, wds, parquet or npy (docs/corpora.md).")
    ] = "ecdc",
    shard_size: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Recordings of a shard (wds, parquet).")
    ] = 1000,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=0, max=MOST_THREADS, help="Processes, a thread each; 0 for one a core.")
    ] = 0,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Only part I of N, from 0: for arrays of a scheduler.")
    ] = "0/1",
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray", metavar="[ADDRESS]", help="On a Ray cluster, an actor a core or GPU; alone, a local Ray."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="cpu, or a device of torch such as cuda: many recordings at once.")
    ] = "cpu",
    batch: Annotated[int, typer.Option(min=1, max=4096, metavar="N", help="Recordings at once on --device.")] = 16,
    again: Annotated[bool, typer.Option("--again", help="Also what has been encoded.")] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Also shards of which some recordings failed.")] = False,
    verify: Annotated[
        int, typer.Option(min=0, max=1_000_000, metavar="N", help="At the end, check so many recordings.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Encode many recordings, exactly as `encode` does one.

    What is encoded already is left out, so that the same command resumes an interrupted run. Recordings that cannot be
    read are listed in OUT/failed.jsonl and at the end, with exit code 1; the others are encoded.
    """
    from streaming_encodec.corpus.encode import encode_corpus, plan_corpus
    from streaming_encodec.corpus.journal import parse_part

    execute = _executor(ray, jobs, device)
    plan = plan_corpus(
        source,
        target,
        model,
        bandwidth=bandwidth,
        engine=engine,
        output=output,
        shard_size=shard_size,
        part=parse_part(shard),
        device=device,
        batch=batch,
    )
    with corpus_progress(time.monotonic) as show:
        done = encode_corpus(plan, again=again, retry=retry, execute=execute, progress=show)
    verified = None
    if verify:
        from streaming_encodec.corpus.verify import verify_corpus

        verified = verify_corpus(plan, verify, {line["id"] for line in done.failed}, random.SystemRandom())
    note_preview(model)
    _report(plan, done, verified, as_json)
    if done.failed or (verified and verified.wrong):
        raise typer.Exit(1)


def _executor(ray: str | None, jobs: int, device: str) -> Executor:
    if ray is None:
        from streaming_encodec.corpus.local import run_in_processes

        return partial(run_in_processes, processes=jobs if device == "cpu" else max(1, jobs))
    from streaming_encodec.corpus.ray_data import run_on_ray

    return partial(run_on_ray, address=ray or None, actors=jobs)


def _report(plan: Plan, done: EncodedCorpus, verified: Verified | None, as_json: bool) -> None:
    if as_json:
        facts: dict[str, Any] = {
            "files": done.recordings,
            "already_there": done.already_there,
            "skipped": [str(path) for path in done.skipped],
            "arithmetic": done.arithmetic or "layers",
            "seconds": done.seconds,
            "bytes": done.size_bytes,
            "failed": {line["audio"]: line["error"] for line in done.failed},
        }
        if verified:
            facts |= {"verified": verified.equal, "wrong": verified.wrong}
        print_json(facts)
    else:
        rows = {
            "encoded": f"{done.recordings} recordings, {minutes(done.seconds)} of sound",
            "were there": f"{done.already_there} recordings",
            "failed": f"{len(done.failed)} recordings",
        }
        if verified:
            snr = f"; SNR {statistics.median(verified.snr_db):.1f} dB (median)" if verified.snr_db else ""
            rows["verified"] = f"{verified.equal} of {verified.equal + len(verified.wrong)}{snr}"
        print_facts(f"{plan.settings.dataset.format} → {plan.settings.folder}", rows)
    if done.skipped:
        example = done.skipped[0]
        note(
            f"{len(done.skipped)} files such as {example} are macOS's notes on other files, and hold no sound: skipped"
        )
    for line in done.failed[:_MOST_COMPLAINTS]:
        error, audio = line["error"], line["audio"]
        complain(error if error.startswith(audio) else f"{audio}: {error}")
    if len(done.failed) > _MOST_COMPLAINTS:
        complain(f"and {len(done.failed) - _MOST_COMPLAINTS} more: see failed.jsonl in {plan.settings.folder}")
    for name, problem in list(verified.wrong.items())[:_MOST_COMPLAINTS] if verified else ():
        complain(f"{name}: {problem}")
