"""Many independent jobs, each in a process of its own, on this machine or on a Ray cluster."""

import importlib
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from typing import Any, Literal

from rich.progress import Progress

Job = Callable[[], object]
"""Something that can be pickled and that keeps what it found in a file."""
Backend = Literal["processes", "ray"]
_ATTEMPTS = 2


def run_jobs(
    jobs: Mapping[str, Job], *, num_workers: int = 1, backend: Backend = "processes"
) -> dict[str, str]:
    """Run jobs side by side; one that fails, or whose process dies, is tried once more.

    The others go on. With Ray, as many run at once as the cluster has cores.

    Args:
        jobs: What to run, by name.
        num_workers: Processes at a time, on this machine; with 0, jobs run here, one by one.
        backend: ``ray`` needs the package of that name.

    Returns:
        What was wrong with the jobs that failed twice, by name.
    """
    start = _on_ray if backend == "ray" else _in_processes if num_workers else _here
    failed: dict[str, str] = {}
    with Progress() as progress, ThreadPoolExecutor(max(1, num_workers)) as threads:
        bar = progress.add_task("jobs", total=len(jobs))
        futures = start(jobs, threads)
        for future in as_completed(futures):
            if (error := future.exception()) is not None:
                failed[futures[future]] = f"{type(error).__name__}: {error}"
            progress.advance(bar)
    return {name: failed[name] for name in jobs if name in failed}


def run_all_jobs(
    jobs: Mapping[str, Job], *, num_workers: int = 1, backend: Backend = "processes"
) -> None:
    """Run jobs as `run_jobs` does, and say in the end if some were not to be done.

    Raises:
        RuntimeError: If jobs failed twice, with their names and errors.
    """
    failed = run_jobs(jobs, num_workers=num_workers, backend=backend)
    if failed:
        reasons = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
        raise RuntimeError(
            f"{len(failed)} of {len(jobs)} jobs failed twice; the others are kept, so run this "
            f"again once it is put right:\n{reasons}"
        )


def _here(jobs: Mapping[str, Job], threads: ThreadPoolExecutor) -> dict[Future[None], str]:
    return {threads.submit(_try, _call, job): name for name, job in jobs.items()}


def _in_processes(jobs: Mapping[str, Job], threads: ThreadPoolExecutor) -> dict[Future[None], str]:
    return {threads.submit(_try, _in_new_process, job): name for name, job in jobs.items()}


def _in_new_process(job: Job) -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        process.submit(job).result()


def _try(run: Callable[[Job], object], job: Job) -> None:
    """Run a job, and once more where that fails."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            run(job)
            return
        except Exception:
            if attempt == _ATTEMPTS:
                raise


def _on_ray(jobs: Mapping[str, Job], threads: ThreadPoolExecutor) -> dict[Future[Any], str]:
    ray = importlib.import_module("ray")  # an extra
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    remote = ray.remote(num_cpus=1, max_retries=_ATTEMPTS - 1, retry_exceptions=True)
    return {remote(_call).remote(job).future(): name for name, job in jobs.items()}


def _call(job: Job) -> None:
    job()
