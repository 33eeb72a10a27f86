"""The scaling trend in TensorBoard: one run a model, to be compared curve by curve."""

import shutil
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from trend_summary import Results

_TAGS = {
    "vlm_return": "vlm_reward",
    "env_return": "env_reward",
    "test_success": "eval/held_out_success",
    "train_success": "eval/named_success",
}


def write_events(folder: Path, results: Results) -> None:
    """Write the learning curves of each model, means over seeds, under ``folder/<model>``.

    The ground truth's are beside them. Whatever the folder held is replaced.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for model, distilled in results.in_context.items():
        with SummaryWriter(str(folder / model.replace("/", "_"))) as writer:
            for domain in results.domains:
                runs = results.online[domain, model]
                for name, tag in _TAGS.items():
                    values = np.mean([found[name] for found in runs], axis=0)
                    for step, value in zip(runs[0]["steps"], values, strict=True):
                        writer.add_scalar(f"{tag}_{domain}", value, int(step))
            shares = [found["env_returns"] / found["optimum"][:, None] for found in distilled]
            for episode, value in enumerate(np.mean(shares, axis=(0, 1)), start=1):
                writer.add_scalar("eval/in_context_return", value, episode)
