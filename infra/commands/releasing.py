"""Commands on releases: composed, promoted, rolled back, compared, cleared away."""

from __future__ import annotations

from typing import Annotated

import typer

from infra.commands.state import named_errors


def release(context: typer.Context) -> None:
    """Compose the newest versions into one immutable release, measured, and make it the challenger."""
    from infra import jobs

    with named_errors():
        jobs.release(context.obj.home)


def promote(
    context: typer.Context,
    version: Annotated[
        int | None, typer.Argument(help="Release version; the challenger if left out.", show_default=False)
    ] = None,
    override: Annotated[
        str | None, typer.Option("--override", help="Promote although a gate fails, saying why (kept).")
    ] = None,
) -> None:
    """Put a release through its gates and make it the champion that services follow."""
    from infra import jobs

    with named_errors():
        jobs.promote(context.obj.home, version, override)


def rollback(context: typer.Context) -> None:
    """Make the previous champion the champion again."""
    from infra import jobs

    with named_errors():
        jobs.rollback(context.obj.home)


def history(context: typer.Context) -> None:
    """Every promotion and rollback: when, by whom, past which gates, and why in spite of one."""
    from infra import releases

    with named_errors():
        releases.history(context.obj.home)


def diff(
    context: typer.Context,
    a: Annotated[int, typer.Argument(min=1, help="A release version.")],
    b: Annotated[int, typer.Argument(min=1, help="Another.")],
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure both anew on the same users and rows of today's lake.")
    ] = False,
) -> None:
    """Two releases side by side: parts, data, commit, metrics with their differences, gates."""
    if a == b:
        raise typer.BadParameter(f"release {a} against release {b} is one release; name two", param_hint="'b'")
    from infra import releases

    with named_errors():
        releases.diff(context.obj.home, a, b, measure=measure)


def gc(
    context: typer.Context,
    keep: Annotated[
        int, typer.Option(min=1, help="Newest releases to keep beside those in use and the one before.")
    ] = 3,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would go, in bytes.")] = False,
) -> None:
    """Clear away the collections, vectors, rows and weights of releases that nobody can go back to."""
    from infra import releases

    with named_errors():
        releases.gc(context.obj.home, releases=keep, dry_run=dry_run)
