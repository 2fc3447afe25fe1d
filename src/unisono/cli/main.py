"""``unisono VERB ...``: find the verb, read its arguments, run it, and turn errors into messages and exit codes.

Only results go to stdout; bars, notes and errors go to stderr. Exit codes: 0 done, 1 the work failed, 2 a mistake of the caller's,
130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from unisono import __version__
from unisono.core.errors import UnisonoError, nearest

#: Verb -> what it does, in the order in which a person meets them.
VERBS = {
    "demo": "see it work: a made-up world of scenes, from table to report",
    "inspect": "say what each column of a table is, what is missing, what looks suspicious",
    "fit": "train a model on a table",
    "evaluate": "measure a model, also with sources missing",
    "predict": "predict every row of a table",
    "embed": "turn every row of a table into a vector",
    "index": "make a table searchable, or add, replace and delete rows",
    "search": "find the rows nearest to a text, a picture, a sound, another row, or several of these",
    "serve": "answer over HTTP, with a page to search and look at",
    "compress": "make a model cheaper, and say what changed",
    "recipes": "list the published systems that can be chosen by name, or show or draw one",
    "check": "hold the components of another package against the contracts",
}


class Parser(argparse.ArgumentParser):
    """An argument parser that names the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to find help."""
        self.exit(2, f"{self.prog}: {message}\nTry: {self.prog} --help\n")

    def refuse_unknown(self, unknown: Sequence[str]) -> None:
        """Refuse arguments that no option takes."""
        if unknown:
            options = [s for action in self._actions for s in action.option_strings if s.startswith("--")]
            word = unknown[0].split("=")[0]
            self.error(f"unknown argument {word!r}{nearest(word, options) if word.startswith('-') else ''}")


def usage() -> str:
    """The help of the command itself."""
    lines = [f"  {verb:<10}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "usage: unisono VERB [options]",
            "",
            "One model for a table whose columns are anything: numbers, text, images, sound, video, series, graphs, ...",
            "",
            *lines,
            "",
            "unisono VERB --help says what a verb takes; unisono --version says which version this is.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0
    if words[0] in {"-V", "--version"}:
        print(f"unisono {__version__}")
        return 0
    verb = words[0]
    if verb not in VERBS:
        print(f"unisono: there is no verb {verb!r}{nearest(verb, VERBS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"unisono.cli.{verb}")
    parser = Parser(prog=f"unisono {verb}", description=VERBS[verb][0].upper() + VERBS[verb][1:] + ".", allow_abbrev=False)
    module.add_arguments(parser)
    try:
        arguments, unknown = parser.parse_known_args(words[1:])
        parser.refuse_unknown(unknown)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    return _run(module.run, arguments, verb)


def _run(run: object, arguments: argparse.Namespace, verb: str) -> int:
    from unisono.train.devices import prepare_environment

    prepare_environment()
    try:
        code = run(arguments)  # type: ignore[operator]
        sys.stdout.flush()
        return int(code or 0)
    except UnisonoError as error:
        print(f"unisono {verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"unisono {verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
