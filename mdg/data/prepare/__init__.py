"""Bringing downloaded copies of MFNet, PST900 and FMB into the folders that their loaders expect.

A copy may be a folder or one or several archives, in any of the layouts found in the wild. Files are only transferred,
never decoded or changed, and the copy is only ever read.
"""

from mdg.data.prepare.layouts import FMBLayouts, MFNetLayouts, PST900Layouts
from mdg.data.prepare.run import prepare

__all__ = ["FMBLayouts", "MFNetLayouts", "PST900Layouts", "prepare"]
