"""What is staged, as if it were a commit already. The index is read as data: nothing of the repository runs."""

import shutil

from treering.errors import RepositoryError, UsageError
from treering.git.diffs import read_diffs
from treering.git.entries import Diff
from treering.git.history import Node
from treering.git.patches import Caps
from treering.git.shadow import GitFailed, Source, shadow_of

_NOBODY = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]


def staged(source: Source, caps: Caps, *, seconds: float) -> Diff:
    """The diff of the index to HEAD, with hunks. In a shadow the index becomes a tree and the tree a commit, so that it
    is read as every commit is.

    Raises :class:`UsageError` where nothing is staged or a conflict is open, :class:`RepositoryError` without a work
    tree.
    """
    index = source.git_dir / "index"
    if source.worktree is None:
        raise RepositoryError(f"{source.git_dir} has no work tree, so nothing is staged", "run it in a work tree")
    nothing = UsageError("nothing is staged", "stage what the commit is to hold: git add")
    if not index.is_file():
        raise nothing
    with shadow_of(source) as shadow:
        try:
            for part in (index, *source.git_dir.glob("sharedindex.*")):  # more than one where it is split
                shutil.copyfile(part, shadow.git_dir / part.name)
        except OSError as error:
            raise RepositoryError(f"cannot read {index}: {error.strerror}", "run as the user who owns it") from error
        try:
            if shadow.run("ls-files", "--unmerged", "-z"):
                raise UsageError("the index holds conflicts", "resolve them and stage the result: git add")
            tree = shadow.run("write-tree", "--missing-ok").decode("ascii").strip()
            parents = _head(source)
            said = [part for parent in parents for part in ("-p", parent)]
            made = shadow.run(*_NOBODY, "commit-tree", tree, *said, "-m", "staged").decode("ascii").strip()
            (diff,) = read_diffs(shadow, [Node(made, parents)], workers=1, seconds=seconds, caps=caps)
        except GitFailed as error:
            raise RepositoryError(f"the index of {source.git_dir} cannot be read: {error}", "run `git fsck`") from error
    if not diff.changes:
        raise nothing
    return diff


def _head(source: Source) -> tuple[str, ...]:
    """The commit that comes before; none where the branch is not born yet."""
    try:
        return (source.ask("rev-parse", "--verify", "--quiet", "HEAD").decode("ascii").strip(),)
    except GitFailed:
        return ()
