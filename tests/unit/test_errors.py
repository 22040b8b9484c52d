"""The tree of errors: what its docstring draws is what there is."""

import inspect
import re

import pytest

from treering import errors
from treering.errors import MissingExtra, TreeringError, needs

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, TreeringError)]
DRAWN = dict(re.findall(r"^ {4}[│├└─ ]*([A-Z]\w+) +(.*)$", errors.__doc__ or "", re.MULTILINE))


def test_the_docstring_draws_every_error_and_no_other() -> None:
    assert set(DRAWN) == {one.__name__ for one in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_the_drawn_exit_code_is_the_real_one(error: type[TreeringError]) -> None:
    code = re.match(r"\d+", DRAWN[error.__name__])
    parent = error.__mro__[1]
    # A branch without a number of its own ends with its parent's.
    assert error.exit_code == (int(code[0]) if code else getattr(parent, "exit_code", None))


def column(name: str) -> int:
    """Where the docstring's tree has a name: four to the right of what it hangs from."""
    (line,) = (line for line in (errors.__doc__ or "").splitlines() if re.match(rf"[ │├└─]+{name}\b", line))
    return line.index(name)


@pytest.mark.parametrize("error", [one for one in CLASSES if one is not TreeringError])
def test_an_error_stands_under_the_one_it_is_a_kind_of(error: type[TreeringError]) -> None:
    above = error.__mro__[1]
    assert column(error.__name__) == column(above.__name__) + 4
    assert list(DRAWN).index(above.__name__) < list(DRAWN).index(error.__name__)


def test_an_error_keeps_its_message_and_the_way_out() -> None:
    error = TreeringError("it broke", "mend it")
    assert (str(error), error.message, error.hint) == ("it broke", "it broke", "mend it")
    assert TreeringError("it broke").hint == ""


def test_a_missing_library_is_told_with_the_extra_that_brings_it() -> None:
    with pytest.raises(MissingExtra) as caught, needs("train"):
        import no_such_library_of_ours  # type: ignore[import-not-found]  # noqa: F401  (that it is missing is the point)
    assert "no_such_library_of_ours" in caught.value.message
    assert "'.[train]' in the folder of treering" in caught.value.hint
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_installed_library_passes_the_door() -> None:
    with needs("train"):
        import json
    assert json.loads("1") == 1


def test_another_error_inside_is_not_called_a_missing_library() -> None:
    with pytest.raises(ImportError) as caught, needs("train"):
        raise ImportError("a library that is there and broken")
    assert not isinstance(caught.value, TreeringError)
