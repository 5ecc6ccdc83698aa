"""A chain of stages: plans, sessions, steps, the loop, checkpoints, hand-over. Imports model and suites, never evaluation."""
