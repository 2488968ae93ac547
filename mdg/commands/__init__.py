"""The mains of the command-line tools: ``tools/*.py``, ``scripts/prepare_*.py`` and the console scripts call them.

Each module has ``parse()`` (its arguments), ``run(args)`` (what it does) and ``main()`` (both, with errors as messages
and exit codes). What is heavy is imported in ``run``, behind the arguments that can be checked without it: torch takes
seconds, ``--help`` and a mistake should not.
"""
