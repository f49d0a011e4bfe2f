"""The executor for a cluster: Ray Data, with an actor for each core or GPU, each with one worker.

The folder to write and the sources must be at the same place on every machine, and the package installed there. Which
shards there are does not depend on the machines, nor does what is in them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from streaming_encodec.corpus.jobs import Done, Job, Worker, WorkerSettings
from streaming_encodec.errors import FolderError
from streaming_encodec.extras import needs_extra

_MOST_BLOCKS = 10_000
"""Ray keeps a little of each block in the driver. Beyond this, a block has several jobs."""


def run_on_ray(
    jobs: Iterable[Job], settings: WorkerSettings, address: str | None = None, actors: int = 0
) -> Iterator[Done]:
    """Do jobs on a Ray cluster; without an address, on one that is started on this machine and ended again.

    Args:
        address: what `ray.init` takes: `auto` is the cluster that this machine is part of, `ray://HOST:10001` another.
        actors: how many; 0 is as many as the cluster has cores, or GPUs where the device is one. Never more than jobs.

    Raises:
        MissingExtraError: Ray is not installed.
        FolderError: there is no cluster at the address, it has no free core or GPU, or it failed.
    """
    ray = _ray()
    items = [{"job": job.to_json()} for job in jobs]
    if not items:
        return
    mine = not ray.is_initialized()
    try:
        if mine:
            _connect(ray, address)
        yield from _run(ray, items, settings, actors)
    finally:
        if mine:
            ray.shutdown()


def _run(ray: Any, items: list[dict[str, str]], settings: WorkerSettings, actors: int) -> Iterator[Done]:
    kind = "CPU" if settings.device == "cpu" else "GPU"
    most = int(ray.cluster_resources().get(kind, 0))
    if not most:
        raise FolderError(f"the Ray cluster has no {kind}: add machines, or choose another device")
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the command tells how far it is
    size = min(actors or most, most, len(items))
    needs = {"num_cpus": 1} if kind == "CPU" else {"num_gpus": 1}
    done = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
        _Actor,
        fn_constructor_args=(settings,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=size),
        **needs,
    )
    try:
        for row in done.iter_rows():
            yield Done.from_json(row["done"])
    except ray.exceptions.RayError as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise FolderError(
            f"Ray could not do it ({words[-1].strip()}): run the same again, which goes on where this stopped"
        ) from error


class _Actor:
    """What Ray runs on each core: a worker."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._worker = Worker(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """The results of a batch of jobs, as JSON both ways."""
        return {"done": [self._worker.do(Job.from_json(str(text))).to_json() for text in batch["job"]]}


def _connect(ray: Any, address: str | None) -> None:
    try:
        # "local": never a cluster that happens to run on this machine.
        own = {} if address else {"include_dashboard": False}
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **own)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        words = " ".join(str(error).split())
        raise FolderError(f"no Ray cluster at {address or 'this machine'}: {words:.300}") from error


def _ray() -> Any:
    with needs_extra("a cluster", "Ray", "ray"):
        import ray
        import ray.data
        import ray.exceptions
    return ray
