"""Algorithm Distillation: learning histories in, an agent that learns in context out.

Knows no environment and no reward model: it meets them through `algdistill.tasks.BatchedTasks`.

- `algdistill.sources` trains many source learners and records their learning histories.
- `algdistill.histories` defines, stores and samples learning histories.
- `algdistill.models` and `algdistill.training` distil them into a causal transformer.
- `algdistill.agents` and `algdistill.evaluation` let it learn in context and measure how fast.
"""

__all__ = ["agents", "evaluation", "histories", "models", "sources", "tasks", "training"]
