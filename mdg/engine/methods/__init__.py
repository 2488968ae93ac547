"""What is learnt from, and how: a file for each method of training."""

from mdg.engine.methods.architectures import ArchitectureTriTraining
from mdg.engine.methods.base import Images, Method, Supervised, unwrapped
from mdg.engine.methods.mean_teacher import MeanTeacher
from mdg.engine.methods.strong_weak import StrongWeak
from mdg.engine.methods.tri_training import TriTraining

__all__ = [
    "ArchitectureTriTraining",
    "Images",
    "MeanTeacher",
    "Method",
    "StrongWeak",
    "Supervised",
    "TriTraining",
    "unwrapped",
]
