"""An encoder that remembers, small enough to be recomputed by hand."""

import numpy as np
import torch
from torch.nn.functional import normalize

from vlmreward import FakeEncoder
from vlmreward.encoders.base import require_modalities


class RememberingEncoder(FakeEncoder):
    """Embeds an episode so far as the direction of the sum of its frames, later ones weighing more.

    Features are wider than embeddings, so that one cannot be taken for the other.
    """

    optional_modalities = ()

    def encode_step(self, obs):
        own = super().encode_obs(obs)
        return torch.cat([own, torch.ones(len(own), 1)], dim=1)

    def encode_obs(self, obs):
        return self.new_memory(len(obs["pixels"])).push(
            np.arange(len(obs["pixels"])), self.encode_step(obs)
        )

    def new_memory(self, num_envs):
        return SummingMemory(num_envs, self.embed_dim)


class SummingMemory:
    def __init__(self, num_envs, embed_dim):
        self.sums = torch.zeros(num_envs, embed_dim)

    @property
    def streams(self):
        return ("sum",) * len(self.sums)

    def clear(self, rows):
        self.sums[rows] = 0.0

    def push(self, rows, features):
        self.sums[rows] = 0.5 * self.sums[rows] + features[:, :-1]
        return normalize(self.sums[rows], dim=1)


class SensingEncoder(RememberingEncoder):
    """Reads frames and sound, either of which may be missing, and remembers what it was given."""

    modalities = ("pixels", "audio")
    optional_modalities = modalities

    def __init__(self):
        super().__init__()
        self.given = []

    def encode_step(self, obs):
        read = require_modalities(obs, self)
        self.given.append(sorted(read))
        num_rows = len(next(iter(read.values())))
        own = torch.zeros(num_rows, self.embed_dim)
        own[:, 0] = 1.0
        if "pixels" in read:
            own = FakeEncoder.encode_obs(self.of_frames, {"pixels": read["pixels"]})
        return torch.cat([own, torch.ones(num_rows, 1)], dim=1)

    of_frames = FakeEncoder()
