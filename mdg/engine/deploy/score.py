"""Scores of a file: by the project's own evaluation, with the file in place of the network.

Legend: B batch, K classes, H W size of the images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mdg.config import RunConfig
from mdg.data import build_dataset
from mdg.engine.deploy.agreement import classes_of, probabilities_of
from mdg.engine.deploy.network import Shape, require_sizes
from mdg.engine.deploy.runtimes import Run
from mdg.engine.distributed import World
from mdg.engine.evaluation.evaluator import evaluate_model, make_eval_loader
from mdg.models.segmentor import SegmentationOutput

# A file is one pass over whole images, whatever `eval:` of the checkpoint says.
WHOLE = ("eval.mode=whole", "eval.window=null", "eval.stride=null")
RULES = (*WHOLE, "eval.scales=[1]", "eval.flip=false", "eval.batch_size=1")
SURE = 30.0  # logit of the class of a mask over those of the others


class FileNetwork(nn.Module):
    """A file of a network, called as the network.

    Args:
        run: Of :func:`mdg.engine.deploy.runtimes.open_file`.
        shape: What the file takes.
        classes: ``K``.
    """

    def __init__(self, run: Run, shape: Shape, classes: int):
        super().__init__()
        self.run, self.shape, self.num_classes = run, shape, classes

    def forward(self, rgb_B3HW: Tensor, thermal_B1HW: Tensor) -> SegmentationOutput:
        """uint8 images; ``logits`` are logarithms of probabilities.

        Raises:
            DataError: Images of a size that the file does not take.
        """
        require_sizes(self.shape, rgb_B3HW.shape[-2:])
        logits = [
            torch.from_numpy(self._logits(rgb, thermal))
            for rgb, thermal in zip(rgb_B3HW.float().numpy(), thermal_B1HW.float().numpy(), strict=True)
        ]
        return SegmentationOutput(torch.stack(logits))

    def _logits(self, rgb_3HW: np.ndarray, thermal_1HW: np.ndarray) -> np.ndarray:
        batch = 1 if self.shape.dynamic else self.shape.batch
        arrays = self.run(*(np.repeat(image[None], batch, axis=0) for image in (rgb_3HW, thermal_1HW)))
        probable = probabilities_of(arrays)
        if probable is None:
            mask_HW = classes_of(arrays)[0]
            return SURE * (np.arange(self.num_classes)[:, None, None] == mask_HW).astype(np.float32)
        return np.log(np.maximum(probable[0], 1e-38))


def score(network: nn.Module, config: RunConfig, split: str) -> float:
    """mIoU in per cent of a network, or of a file in its place, on a split of the data set of ``config``.

    Args:
        network: On the CPU.
        config: With :data:`RULES`.
        split: "train", "val" or "test".

    Raises:
        UserError: A data set that cannot be read, or images of a size that the file does not take.
    """
    dataset = build_dataset(config.data, split)
    loader = make_eval_loader(config, dataset, World(), workers=0)
    evaluation = evaluate_model(network, loader, dataset, config, World())
    assert evaluation is not None, "nothing asks it to stop"
    return 100 * evaluation.means()["mIoU"]
