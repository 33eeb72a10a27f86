"""Agents that act in many tasks at once."""

from algdistill.agents.base import Agent, RandomAgent
from algdistill.agents.in_context_agent import InContextAgent
from algdistill.agents.loop_detector import LoopDetector

__all__ = ["Agent", "InContextAgent", "LoopDetector", "RandomAgent"]
