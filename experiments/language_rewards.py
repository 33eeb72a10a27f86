"""One experiment for every environment: say a goal, measure its reward, train agents on it.

1. ``encoder``: train a small CLIP on captions from the environment's own state, unless an open_clip
   model is asked for.
2. ``offline``: score labelled frames with several heads; choose the head, or its threshold, on one
   draw of frames and measure it on another.
3. ``agent_*``: train agents on the reward model, and the same agents on the ground truth.
4. ``random``: let random actions act. Then write ``summary.json`` and ``report.html``.

The environments are in scripts of their own, beside this one.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from in_domain_encoder import train_encoder
from language_report import figures, write_language_report
from language_summary import Results, choose_head, summarise
from language_task import LanguageTask
from reward_agents import PAID_BY, evaluate_agent, train_agent
from run_folder import Arrays, RunFolder, write_json
from vlmreward import CosineHead, Head, RewardModel, SoftmaxHead
from vlmreward.encoders import CachedEncoder, ImageTextEncoder, load_encoder
from vlmreward.heads import GoalBaselineHead

IN_DOMAIN = "in-domain"
ALPHAS = (0.25, 0.5, 0.75, 1.0)
CALIBRATION_SEED, TEST_SEED = 1_000_001, 1_000_002


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Attributes:
        encoder_steps: Gradient steps of the in-domain CLIP, 128 frames each.
        encoder_frames: Frames it is trained on, drawn once.
        labelled_frames: Frames in each of the two offline draws.
        agent_steps: Environment steps of each agent.
        agent_seeds: Agents of each algorithm on each reward.
        evaluation_episodes: Episodes of each trained agent.
    """

    encoder_steps: int
    encoder_frames: int
    labelled_frames: int
    agent_steps: int
    agent_seeds: int
    evaluation_episodes: int


DEBUG = Sizes(
    encoder_steps=3,
    encoder_frames=128,
    labelled_frames=512,
    agent_steps=1600,
    agent_seeds=1,
    evaluation_episodes=8,
)


@dataclass(frozen=True)
class Options:
    """What the command line of every environment takes.

    Attributes:
        preset: ``debug`` to see that everything runs, ``full`` for the numbers of the results.
        model: ``in-domain`` trains a small CLIP on the environment's own captions. Anything else is
            a name that ``vlmreward.load_encoder`` takes, such as ``ViT-B-32``.
        pretrained: open_clip's tag of that model's weights, downloaded on first use.
        checkpoint: A local file of that model's weights, where there is no network.
        algorithms: Which agents to train; all that the environment has if none is named.
        run_name: Folder under ``runs/``; made of the environment and the preset if not given.
        num_threads: Of torch; another number rounds differently.
    """

    preset: Literal["debug", "full"] = "full"
    model: str = IN_DOMAIN
    pretrained: str | None = None
    checkpoint: Path | None = None
    algorithms: tuple[str, ...] = ()
    run_name: str | None = None
    num_threads: int = 1


@dataclass(frozen=True)
class Settings:
    """What decides a run's results."""

    sizes: Sizes
    model: str
    pretrained: str | None
    checkpoint: str | None
    algorithms: tuple[str, ...]


def run_experiment(task: LanguageTask, options: Options, full: Sizes) -> Path:
    """Run every stage that an earlier run did not finish; return the report's path.

    Raises:
        ValueError: An algorithm is not among the environment's.
    """
    unknown = set(options.algorithms) - set(task.agents)
    if unknown:
        raise ValueError(f"got algorithms {sorted(unknown)}, expected some of {list(task.agents)}")
    torch.set_num_threads(options.num_threads)
    settings = Settings(
        sizes=DEBUG if options.preset == "debug" else full,
        model=options.model,
        pretrained=options.pretrained,
        checkpoint=None if options.checkpoint is None else str(options.checkpoint),
        algorithms=options.algorithms or tuple(task.agents),
    )
    sizes = settings.sizes
    run = RunFolder(Path("runs") / (options.run_name or f"{task.name}_{options.preset}"), settings)
    encoder = find_encoder(task, settings, run)
    heads = candidate_heads(task, encoder)
    offline = run.stage("offline", partial(score_labelled_frames, task, encoder, heads, sizes))
    head = choose_head(heads, offline, binary=task.pays == "binary")
    reward_model = RewardModel(CachedEncoder(encoder), task.goals, head)

    agents = {
        (algorithm, paid_by, seed): run.stage(
            f"agent_{algorithm}_{paid_by}_{seed}",
            partial(
                train_agent,
                task,
                reward_model,
                algorithm,
                paid_by,
                num_steps=sizes.agent_steps,
                num_episodes=sizes.evaluation_episodes,
                seed=seed,
                log_dir=run.path,
            ),
        )
        for algorithm in settings.algorithms
        for seed in range(sizes.agent_seeds)
        for paid_by in PAID_BY
    }
    random = run.stage(
        "random",
        partial(evaluate_agent, task, reward_model, None, num_episodes=sizes.evaluation_episodes),
    )
    results = Results(task, heads, head, offline, agents, random)
    summary = summarise(run, results)
    write_json(run.path / "summary.json", summary)
    drawn = figures(results, summary)
    for number, figure in enumerate(drawn, start=1):
        figure.save(run.path / "figures", number)
    report = write_language_report(run.path, task, summary, drawn)
    print(f"report: {report}")
    return report


def find_encoder(task: LanguageTask, settings: Settings, run: RunFolder) -> ImageTextEncoder:
    """Train the in-domain CLIP, or load the model that was asked for."""
    if settings.model != IN_DOMAIN:
        return load_encoder(
            settings.model, pretrained=settings.pretrained, checkpoint=settings.checkpoint
        )

    def train() -> Arrays:
        frames = task.labelled(8, np.random.default_rng(0)).frames
        train_encoder(
            task.captions,
            frames.shape[1:3],
            run.path,
            num_steps=settings.sizes.encoder_steps,
            num_frames=settings.sizes.encoder_frames,
        )
        return {}

    run.stage("encoder", train)
    return load_encoder(str(run.path / "encoder.json"), device="cpu")


def candidate_heads(task: LanguageTask, encoder: ImageTextEncoder) -> dict[str, Head]:
    """Return the heads to choose from: VLM-RM's for dense rewards, Baumli et al.'s for binary."""
    if task.pays == "binary":
        return {"softmax": SoftmaxHead(temperature=1 / encoder.logit_scale)}
    projections = {f"goal_baseline_{alpha}": GoalBaselineHead(alpha) for alpha in ALPHAS}
    return {"cosine": CosineHead(), **projections}


def score_labelled_frames(
    task: LanguageTask, encoder: ImageTextEncoder, heads: dict[str, Head], sizes: Sizes
) -> Arrays:
    """Score two draws of frames with every head, beside the ground truth."""
    found: Arrays = {}
    for name, seed in (("calibration", CALIBRATION_SEED), ("test", TEST_SEED)):
        drawn = task.labelled(sizes.labelled_frames, np.random.default_rng(seed))
        for column, values in asdict(replace(drawn)).items():
            if column != "frames":
                found[f"{name}_{column}"] = values
        embedding = None
        for head_name, head in heads.items():
            reward_model = RewardModel(encoder, task.goals, head)
            if embedding is None:
                scores = reward_model.score(drawn.frames, drawn.goal_index)
                embedding = scores.embedding
            else:
                scores = reward_model.score_embeddings(embedding, drawn.goal_index)
            found[f"{name}_score_{head_name}"] = scores.score.cpu().numpy().astype(np.float64)
    return found
