"""What can be said of a scene: what CLIPs of a domain are trained on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """Sentences about one scene.

    Attributes:
        true: Every true sentence.
        near_misses: For each true sentence, false ones that resemble it.
    """

    true: tuple[str, ...]
    near_misses: tuple[tuple[str, ...], ...]
