"""How the two streams talk to each other, and how they become one."""

from mdg.models.interaction.fusion import AddFusion, ConcatFusion, CrossModalFusion
from mdg.models.interaction.rectification import FeatureFusion, FeatureRectification
from mdg.models.interaction.spatial_mamba import SpatialMambaFusion
from mdg.models.interaction.stage import ModalityDivergenceInteraction

__all__ = [
    "AddFusion",
    "ConcatFusion",
    "CrossModalFusion",
    "FeatureFusion",
    "FeatureRectification",
    "ModalityDivergenceInteraction",
    "SpatialMambaFusion",
]
