"""Algorithm Distillation in Watermaze (Laskin et al. 2022): platforms never seen, from pixels.

    python experiments/watermaze.py

Agents see each frame through a small encoder that is trained first, on frames from all over the
pool, and then frozen: it tells place cells and head-direction cells. A step takes 444 bytes instead
of 20,736. With ``--observations pixels`` the
model sees the frames themselves, through an encoder of its own trained end to end; all histories
then take 21 GB of memory.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro

from algdistill.sources import GoalSearch, GoalSearchConfig
from algdistill.tasks import EmbeddedObservations
from algdistill.training import TrainingConfig
from in_context_learning import Options, run_experiment, run_folder, shortened
from in_context_task import Ids, InContextTask, Method, split_at_random
from vlmreward_envs.watermaze import WatermazeTasks, no_adaptation_return
from watermaze_encoder import PlaceEncoder, place_encoder, train_place_encoder

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 1000, 32, 64
SEARCH = GoalSearchConfig(num_episodes=14, epsilon=0.05, memory=3)
EXPERT = GoalSearchConfig(num_episodes=20, epsilon=0.05)
TRAINING = TrainingConfig(
    num_updates=10_000,
    batch_size=32,
    token_mask_rate=0.15,
    evaluate_every=1000,
    log_every=50,
    precision="bf16",
)
SHORTER = replace(TRAINING, num_updates=1200, evaluate_every=500)
ENCODER_UPDATES = {"full": 2000, "debug": 10}


@dataclass(frozen=True)
class WatermazeOptions(Options):
    """Options of the command line.

    Attributes:
        observations: What agents see of a frame: its embedding by a frozen encoder, or all of it.
    """

    observations: Literal["encoder", "pixels"] = "encoder"


def make_tasks(ids: Ids, streams: Ids) -> WatermazeTasks:
    """Pools with the platforms that the ids name; first headings are drawn from the streams."""
    return WatermazeTasks(ids, streams)


def make_embedded_tasks(encoder: PlaceEncoder, ids: Ids, streams: Ids) -> EmbeddedObservations:
    """The same, seen through an encoder."""
    return EmbeddedObservations(make_tasks(ids, streams), encoder.embed)


TASK = InContextTask(
    name="watermaze",
    title="Watermaze",
    split=split_at_random(NUM_TRAIN + NUM_VALIDATION + NUM_TEST, NUM_VALIDATION, NUM_TEST),
    make_tasks=make_tasks,
    methods={
        "search": Method("AD of a search", GoalSearch, SEARCH, 1, TRAINING),
        "expert": Method("Expert Distillation", GoalSearch, EXPERT, 1, SHORTER, last_episodes=4),
    },
    model={
        "context_length": 200,
        "embed_dim": 64,
        "num_layers": 4,
        "num_heads": 4,
        "mlp_dim": 256,
    },
    num_episodes=50,
    repeats=2,
    no_adaptation=no_adaptation_return(),
    limitations=(
        "The source searches with the simulator's own position and turns to where it wants to be "
        "as an oracle would; what it learns from rewards is where the platform is.",
        "The frozen encoder was trained, by the simulator's position and heading, to tell from a "
        "frame how active place cells and head-direction cells are; that is what agents see.",
    ),
)


def main(options: WatermazeOptions) -> Path:
    """Train the encoder if there is to be one, run all stages and return the run's folder."""
    torch.set_num_threads(1)
    if options.observations == "pixels":
        return run_experiment(replace(TASK, name="watermaze_pixels"), options)
    num_updates = ENCODER_UPDATES[options.preset]
    task = replace(TASK, environment={"encoder_updates": num_updates})
    run = run_folder(shortened(task) if options.preset == "debug" else task, options)
    found = run.stage("encoder", partial(train_place_encoder, num_updates))
    print(
        f"encoder: {found['position_error']:.2f} m off (median), "
        f"{found['heading_accuracy']:.1%} of headings right",
        flush=True,
    )
    make_tasks = partial(make_embedded_tasks, place_encoder(found))
    return run_experiment(replace(task, make_tasks=make_tasks), options)


if __name__ == "__main__":
    main(tyro.cli(WatermazeOptions))
