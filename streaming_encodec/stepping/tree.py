"""Trees of states, which are tuples and NamedTuples of arrays: gone through, and flattened to named arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streaming_encodec.errors import StreamError
from streaming_encodec.types import AnyArray


def map_arrays(function: Callable[[AnyArray], AnyArray], tree: Any) -> Any:
    """Apply ``function`` to every array of a tree."""
    if not isinstance(tree, tuple):
        return function(tree)
    branches = [map_arrays(function, branch) for branch in tree]
    return type(tree)(*branches) if hasattr(tree, "_fields") else tuple(branches)


def zip_arrays(function: Callable[[AnyArray, AnyArray], AnyArray], one: Any, other: Any) -> Any:
    """Apply ``function`` to every pair of arrays of two trees of the same structure."""
    if not isinstance(one, tuple):
        return function(one, other)
    branches = [zip_arrays(function, a, b) for a, b in zip(one, other, strict=True)]
    return type(one)(*branches) if hasattr(one, "_fields") else tuple(branches)


def leaves(tree: Any) -> Iterator[AnyArray]:
    """The arrays of a tree, in order."""
    return (array for _, array in named_arrays(tree, ""))


def named_arrays(tree: Any, prefix: str) -> Iterator[tuple[str, AnyArray]]:
    """The arrays of a tree with their paths, such as ``layers.0.history``."""
    if not isinstance(tree, tuple):
        yield prefix, tree
        return
    names = getattr(tree, "_fields", range(len(tree)))
    for name, branch in zip(names, tree, strict=True):
        yield from named_arrays(branch, f"{prefix}.{name}")


def unflatten(arrays: Mapping[str, AnyArray], like: Any, prefix: str) -> Any:
    """The tree of ``like`` with the arrays of those paths.

    Raises:
        StreamError: an array is missing or of another shape.
    """
    if not isinstance(like, tuple):
        array = arrays.get(prefix)
        if array is None or tuple(array.shape) != tuple(like.shape):
            got = "missing" if array is None else f"{list(array.shape)}"
            raise StreamError(f"the state's {prefix} is {got}, this stream needs {list(like.shape)}")
        return array
    names = getattr(like, "_fields", range(len(like)))
    branches = [unflatten(arrays, branch, f"{prefix}.{name}") for name, branch in zip(names, like, strict=True)]
    return type(like)(*branches) if hasattr(like, "_fields") else tuple(branches)
