"""Generated urban RGB-thermal scenes with MFNet labels: no files, one picture per ``(seed, index)``."""

from mdg.data.synthetic.scene import Scene, render_scene

__all__ = ["Scene", "render_scene"]
