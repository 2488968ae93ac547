#!/usr/bin/env python
"""Compiles the Triton kernels for GPUs that need not be here and writes what they take of them: docs/gpu_kernels.md.

Ten minutes on two cores. Exit code 1 where a kernel does not compile.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "gpu_kernels.md"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="compile_kernels", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="default: docs/gpu_kernels.md")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    arguments = parser.parse_args()
    from mdg.benchmark.ahead_of_time import compile_all, page  # takes seconds; --help should not

    with ProcessPoolExecutor(arguments.processes) as pool:
        results = compile_all(pool.map)
    arguments.out.write_text(page(results), encoding="utf-8")
    print(arguments.out)
    sys.exit(1 if any(result.failure for result in results.values()) else 0)
