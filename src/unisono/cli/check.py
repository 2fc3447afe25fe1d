"""``unisono check PACKAGE``."""

from __future__ import annotations

import argparse

from unisono.cli import common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("package", metavar="PACKAGE", help="an installed package with entry points in groups unisono.ROLE")
    common.add_output(parser)


def run(arguments: argparse.Namespace) -> int:
    """Hold every component of the package against the contracts; 1 when one fails."""
    from unisono.contracts.check import check_package

    common.show_notes(arguments.quiet)
    found = check_package(arguments.package)
    failed = sum(o.result == "failed" for o in found)
    if arguments.json:
        common.print_json({"package": arguments.package, "failed": failed, "results": [vars(o) for o in found]})
        return int(failed > 0)
    common.print_table(
        [[f"{o.role} {o.name}", o.contract, o.result, o.reason] for o in found], ["component", "contract", "result", "reason"], {3: 160}
    )
    components = len({(o.role, o.name) for o in found})
    print(f"\n{components} component{'s' if components != 1 else ''}, {len(found)} contracts, {failed} failed")
    return int(failed > 0)
