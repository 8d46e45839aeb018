"""Errors of data sets, configurations, checkpoints and training runs."""

from homomorph_client.errors import HomomorphError


class DataError(HomomorphError):
    """A data set's labels, groups or pictures are inconsistent."""


class ConfigError(HomomorphError):
    """A configuration value is out of its range, or values contradict each other."""


class CheckpointError(HomomorphError):
    """A run or checkpoint is missing, damaged, or belongs to another configuration."""


class TrainingError(HomomorphError):
    """Training cannot go on: a loss became NaN or infinite, for example."""
