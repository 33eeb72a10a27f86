"""An encoder in several processes, each with its share of every batch.

One process has the learner, the environments or the recording, as if it were alone. The others hold
replicas of the encoder, on GPUs of their own, and do nothing but encode.

Axes: `B` batch, `D` width of the embedding.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float

from vlmreward.encoders.base import EncoderWrapper, ImageTextEncoder, require_modalities
from vlmreward.frames import PIXELS, check_frames

T = TypeVar("T")
_PATIENCE = timedelta(days=7)  # of a replica, until the next batch: learners may take their time
_ROWS_AT_ONCE = 1024  # for each process; the frames of one exchange are held in memory


def run_with_replicas(encoder: ImageTextEncoder, work: Callable[[ImageTextEncoder], T]) -> T | None:
    """Does some work in the first process, while all processes encode for it.

    Call it in every process that `accelerate launch` or `torchrun` started, each with the same
    encoder on its own device, after they have met (`accelerate.PartialState()` or
    `torch.distributed.init_process_group()`). The first process does the work, with an encoder that
    splits each batch evenly over all processes, as `torch.nn.DataParallel` does, and puts the
    embeddings together in order. The others return once the work has ended. In a process that is
    alone, the work is done with `encoder` itself.

    Embeddings equal those of one process as those of a batch split otherwise do: to 1e-5 in fp32.
    Frames and embeddings travel through host memory and gloo, whatever the devices are, so hand
    over frames that are on the CPU. Texts are embedded in the first process.

    Args:
        encoder: This process's own.
        work: What to do: train, relabel, score.

    Returns:
        What the work returned in the first process, None in all others.

    Raises:
        RuntimeError: If a launcher started several processes and they have not met, or, in the
            first process, if another could not encode its share or is gone.

    Example:
        >>> import numpy as np
        >>> from vlmreward import CosineHead, FakeEncoder, Goal, RewardModel
        >>> frames = np.zeros((1000, 8, 8, 3), np.uint8)
        >>> def score(encoder):
        ...     return RewardModel(encoder, Goal("a black room"), CosineHead())(frames)
        >>> rewards = run_with_replicas(FakeEncoder(), score)
        >>> bool((rewards == 1).all())
        True
    """
    if not (dist.is_available() and dist.is_initialized()):
        started = os.environ.get("WORLD_SIZE", "1")
        if started != "1":
            raise RuntimeError(
                f"expected {started} processes that have met, as WORLD_SIZE says, got one that is "
                "alone: call accelerate.PartialState() first"
            )
        return work(encoder)
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    try:
        if dist.get_rank() != 0:
            _serve(encoder, group)
            return None
        replicated = ReplicatedEncoder(encoder, group)
        try:
            return work(replicated)
        finally:
            replicated.close()
    finally:
        dist.destroy_process_group(group)  # its threads may otherwise abort a process that exits


class ReplicatedEncoder(EncoderWrapper):
    """The first process's view of an encoder in all of them; see `run_with_replicas`.

    Args:
        encoder: This process's own.
        group: All processes, connected by gloo.
    """

    def __init__(self, encoder: ImageTextEncoder, group: Any) -> None:
        super().__init__(encoder)
        self._group = group

    def encode_obs(self, obs: Mapping[str, Any]) -> Float[torch.Tensor, "B D"]:
        """Embeds observations, each process its share; see `ImageTextEncoder`.

        Raises:
            RuntimeError: If a process could not encode its share; its own error is in the message.
        """
        require_modalities(obs, self)
        read = {modality: obs[modality] for modality in self.modalities}
        if PIXELS in read:
            check_frames(read[PIXELS])
        num_rows = len(next(iter(read.values())))
        step = _ROWS_AT_ONCE * self._group.size()
        return torch.cat(
            [
                self._exchange(_rows(read, start, min(start + step, num_rows)))
                for start in range(0, num_rows, step)
            ]
        )

    def close(self) -> None:
        """Lets the other processes go, those that are still there."""
        with contextlib.suppress(RuntimeError):
            _scatter(self._group, [None] * self._group.size())

    def _exchange(self, obs: dict[str, Any]) -> Float[torch.Tensor, "B D"]:
        num_processes = self._group.size()
        num_rows = len(next(iter(obs.values())))
        # Rounded up, so that this process always has a row: it raises what is wrong with them.
        bounds = [-(-num_rows * rank // num_processes) for rank in range(num_processes + 1)]
        shares = [_rows(obs, *pair) for pair in itertools.pairwise(bounds)]
        _scatter(self._group, [{}, *map(_portable, shares[1:])])
        answers: list[Any] = [None] * num_processes
        try:
            own = self.encoder.encode_obs(shares[0])
        finally:
            dist.gather_object(None, answers, dst=0, group=self._group)  # they wait, come what may
        for rank, answer in enumerate(answers):
            if isinstance(answer, str):
                raise RuntimeError(f"process {rank} could not encode its share:\n{answer}")
        return torch.cat([own, *(torch.from_numpy(x).to(self.device) for x in answers[1:])])


def _serve(encoder: ImageTextEncoder, group: Any) -> None:
    """Encodes what the first process hands out, until it hands out None."""
    while (share := _scatter(group)) is not None:
        answer: Any = np.empty((0, encoder.embed_dim), np.float32)
        try:
            if share:
                answer = encoder.encode_obs(share).cpu().numpy()
        except Exception:  # whatever it is, the first process has to know, and waits
            answer = traceback.format_exc()
        dist.gather_object(answer, dst=0, group=group)


def _scatter(group: Any, shares: list[Any] | None = None) -> Any:
    """Hands out one object to each process, from the first, and returns this process's own."""
    received: list[Any] = [None]
    dist.scatter_object_list(received, shares, src=0, group=group)
    return received[0]


def _rows(obs: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {modality: values[start:stop] for modality, values in obs.items()}


def _portable(obs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a share in host memory, or nothing where it has no rows."""
    arrays = {
        modality: rows.cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
        for modality, rows in obs.items()
    }
    return arrays if all(map(len, arrays.values())) else {}
