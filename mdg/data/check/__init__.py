"""Checking a data set before hours are spent on it: every file is read, and what is wrong is named."""

from mdg.data.check.report import DataReport
from mdg.data.check.run import check_data, inspect_dataset

__all__ = ["DataReport", "check_data", "inspect_dataset"]
