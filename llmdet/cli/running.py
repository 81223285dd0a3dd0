"""How programs train and test: in every process that was launched, naming the first failure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmdet.utils.cli import fast_startup
from llmdet.utils.launchers import recorded_failure

if TYPE_CHECKING:
    from mmengine.config import Config


def run_with_runner(prepare: Callable[[], Config], task: Callable[[Any], Any]) -> None:
    """Build the runner of a config, and have it train or test.

    Args:
        prepare: gives the config; runs where a mistake is still one sentence.
        task: what is done with the runner, which lives no longer than that.
    """
    with recorded_failure(), fast_startup():
        from llmdet.engine import build_runner, run_in_processes
        from llmdet.utils.build import checked_builds

        config = prepare()

    def run() -> None:
        with recorded_failure():
            runner = build_runner(config)
            with checked_builds():
                task(runner)

    run_in_processes(run)
