"""What a network costs: multiply-accumulates, time, memory; ``tools/benchmark.py`` prints it.

Start at :func:`mdg.benchmark.run.benchmark`. Nothing is imported here, so that the process that measures memory holds
nothing that it does not need.
"""
