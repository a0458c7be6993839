"""Runs the package as Python code expects: silent below, with arguments' names in errors."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xlt_bench.errors import InputError

# Not in a command that a message quotes.
_OPTION = re.compile(r"(?<![\w-])--([a-z][a-z-]+)")
_COMMAND = re.compile(r"\b(?:xlt-bench|lm_eval|hf|pip) [a-z]")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' warnings and log lines in the body, and nothing elsewhere.

    Raises:
        InputError: The body raises it; options in its message become arguments.
    """
    level = logging.root.manager.disable
    logging.disable(max(level, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError as error:
        raise InputError(reworded(str(error))) from None
    finally:
        logging.disable(level)


def reworded(message: str) -> str:
    """Name arguments instead of options in a message, up to the first command that it quotes.

    >>> reworded("--batch-size must be at least 1"), reworded("run: xlt-bench join --output DIR")
    ('batch_size must be at least 1', 'run: xlt-bench join --output DIR')
    """
    quoted = _COMMAND.search(message)
    end = quoted.start() if quoted else len(message)
    return _OPTION.sub(lambda found: found[1].replace("-", "_"), message[:end]) + message[end:]


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """Switch off the bars of transformers, which it shows for weights, while the body runs."""
    from transformers.utils import logging as hf_logging

    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextmanager
def bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar of one unit on standard error, which goes away when it is done.

    Args:
        name: What is answered.
        total: The number of its items.

    Yields:
        A function that advances the bar by a number of items.
    """
    from tqdm.std import tqdm

    with tqdm(total=total, desc=name, leave=False, file=sys.stderr) as shown:
        yield lambda done: (shown.update(done), None)[1]
