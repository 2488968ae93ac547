"""Labels as people have them, to id PNGs and back: labelme, COCO, CVAT, colour PNGs, masks. docs/labels.md."""
