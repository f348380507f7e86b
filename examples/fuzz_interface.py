"""Two implementations of one interface, compared: the search finds the bug and prints the test that shows it.

Needs the extra: pip install 'riverbus[fuzz]'. No bus is running.
"""

from typing import Protocol

from riverbus.fuzz import Disagreement, assert_equivalent


class Stack(Protocol):
    def push(self, item: int) -> None: ...
    def pop(self) -> int: ...
    def newest(self, count: int = 1) -> list[int]: ...


class ListStack:
    def __init__(self) -> None:
        self.items: list[int] = []

    def push(self, item: int) -> None:
        self.items.append(item)

    def pop(self) -> int:
        return self.items.pop()

    def newest(self, count: int = 1) -> list[int]:
        return [self.items[-number] for number in range(1, len(self.items) + 1)][: max(0, count)]


class SlicingStack(ListStack):
    def newest(self, count: int = 1) -> list[int]:
        return self.items[-count:][::-1] if count >= 0 else []  # the last 0 of a list are all of it


if __name__ == "__main__":
    try:
        assert_equivalent(Stack, reference=ListStack, test=SlicingStack)
    except Disagreement as found:
        print(found.source)
