from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdg.utils.charts import confusion_picture, draw_confusion

CLASSES = ("road", "car", "person")
COUNTS = np.array([[2997, 2, 1], [1, 2, 1], [0, 0, 0]])


def cells(axes) -> dict[tuple[int, int], str]:
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}


def test_cells_are_per_cent_of_the_label_and_nothing_is_left_empty():
    axes = draw_confusion(COUNTS, CLASSES, "title").axes[0]
    # 2 of 3000 are 0.07 %; 1 of 3000 is 0.03 % and would read 0.0
    assert cells(axes) == {(0, 0): "99.9", (0, 1): "0.1", (1, 0): "25.0", (1, 1): "50.0", (1, 2): "25.0"}


def test_a_class_that_is_always_right_is_100():
    axes = draw_confusion(np.diag([7, 10**12, 1]), CLASSES, "").axes[0]
    assert cells(axes) == {(k, k): "100" for k in range(3)}


def test_absent_classes_are_marked_and_hatched():
    axes = draw_confusion(COUNTS, CLASSES, "title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["road", "car", "person (absent)"]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    (box,) = axes.patches
    assert box.get_hatch() and box.get_y() == 1.5
    assert axes.get_title() == "title"


@pytest.mark.parametrize("classes", [2, 40])
def test_pictures_grow_with_the_classes(classes, tmp_path):
    counts = np.eye(classes, dtype=np.int64)
    confusion_picture(tmp_path / "new" / "c.png", counts, [f"class {k}" for k in range(classes)], "t")
    picture = cv2.imread(str(tmp_path / "new" / "c.png"))
    assert min(picture.shape[:2]) > 50 * max(classes, 7) and picture.std() > 2
