"""The programs of the command line: one module each, with ``main(argv)``.

The files in ``tools/`` and ``demo/`` call them, and so does ``llmdet COMMAND`` (``__main__.py``),
which is there wherever the package is installed.
"""
