"""Machine: many patterns as one automaton that reads each character once.

Patterns become a nondeterministic automaton (Thompson 1968); its deterministic form is made state
by state as texts need it, and kept (as in RE2). To read a character whose state is known costs one
look into a dict; to make a state costs at most a visit of each node. There is no backtracking, so
no pattern and no text can make it slow.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from functools import partial
from typing import NamedTuple

from shared.redaction.patterns import (
    Alt,
    Apart,
    Chars,
    Edge,
    Node,
    Repeat,
    Seq,
    begins_in_word,
    is_word,
)
from shared.redaction.plain import plain_char

#: What is read after the last character of a text, and stands before its first.
END = ""
#: What one machine keeps, in transitions and nodes of states: some 10 MB. Then it begins anew.
KEPT_MAX = 50_000
#: The nodes of one machine.
NODES_MAX = 100_000


class TooLarge(ValueError):
    """The patterns take more nodes than a machine may have."""


class _Op(Enum):
    TAKE = auto()
    GO = auto()
    NOT_BEFORE = auto()
    NOT_AFTER = auto()
    EDGE = auto()
    ACCEPT = auto()


#: What to do, with which class of characters or pattern, and where to go on.
_Instruction = tuple[_Op, int, tuple[int, ...]]


class _Reach(NamedTuple):
    """Where nodes lead without a character: what would take one, what accepts, what must wait.

    `takes` has where to go on by class; `waiting` are edges that depend on the next character.
    """

    takes: dict[int, set[int]]
    accepted: set[int]
    waiting: list[int]


class State(dict[str, "State"]):
    """Where a machine stands after some characters; `state[char]` is where it goes from there.

    `ended` are the patterns of which a text ended before the last character read. That one more
    is read first, because a pattern may say what must not follow it.
    """

    __slots__ = ("_by_mask", "_machine", "before", "ended", "nodes", "notable", "reach")

    def __init__(
        self, machine: "Machine", nodes: frozenset[int], before: int, ended: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.nodes = nodes
        self.before = before
        self.ended = ended
        #: Whether there is anything to do but to read on.
        self.notable = bool(ended) or not nodes
        self.reach: _Reach | None = None
        self._machine = machine
        self._by_mask: dict[int, State] = {}

    def __missing__(self, char: str) -> "State":
        mask = self._machine.mask(char)
        state = self._by_mask.get(mask)
        if state is None:
            state = self._by_mask[mask] = self._machine.step(self, mask)
        self[char] = state
        self._machine.keep()
        return state


class _Starts(dict[str, State]):
    """The state in which a machine begins, by the character before it."""

    def __init__(self, machine: "Machine") -> None:
        super().__init__()
        self._machine = machine

    def __missing__(self, before: str) -> State:
        state = self[before] = self._machine.start(before)
        self._machine.keep()
        return state


class Machine:
    """Runs `patterns`, which are known by their place in the sequence.

    `starts[before]` is the state before a text's first character, `state[END]` after its last.
    A state without nodes is dead: no longer text fits.
    """

    def __init__(self, patterns: Sequence[Node]) -> None:
        self.starts = _Starts(self)
        self._program: list[_Instruction] = []
        self._classes: dict[Chars, int] = {}
        self._word = self._class(Chars(kinds=(is_word,)))
        self._context = 1 << self._word
        self._entries = frozenset(
            self._compile(pattern, self._emit(_Op.ACCEPT, number))
            for number, pattern in enumerate(patterns)
        )
        #: Whether a text could begin between two ASCII letters or digits.
        self.begins_in_word = any(begins_in_word(pattern) for pattern in patterns)
        self._listed, self._tested = _split(self._classes)
        self._forget()

    def start(self, before: str) -> State:
        return self._state(self._entries, self.mask(before) & self._context, ())

    def mask(self, char: str) -> int:
        """The classes that a character, or its plain form, is in; one bit each."""
        mask = self._masks.get(char)
        if mask is None:
            mask = self._masks[char] = self._mask(char)
            if char != END and (form := plain_char(char)) != char:
                mask = self._masks[char] = mask | self._mask(form)
        return mask

    def _mask(self, char: str) -> int:
        mask = self._listed.get(char, 0)
        if char != END:
            for chars, number in self._tested:
                mask |= chars.has(char) << number
        return mask

    def step(self, state: State, mask: int) -> State:
        """The state after a character in these classes."""
        if state.reach is None:
            state.reach = self._follow(state.nodes, state.before, None)
        reaches = [state.reach]
        if state.reach.waiting:
            reaches.append(self._follow(state.reach.waiting, state.before, mask))
        taken: set[int] = set()
        ended: set[int] = set()
        for reach in reaches:
            ended |= reach.accepted
            for number, targets in reach.takes.items():
                if mask >> number & 1:
                    taken |= targets
        context = mask & self._context if taken else 0
        return self._state(frozenset(taken), context, tuple(sorted(ended)))

    def _follow(self, nodes: Iterable[int], before: int, after: int | None) -> _Reach:
        """Go on from nodes as far as that takes no character; `after` None: it is not yet known."""
        reach = _Reach({}, set(), [])
        seen = set(nodes)
        stack = list(seen)
        while stack:
            node = stack.pop()
            op, what, targets = self._program[node]
            if op is _Op.TAKE:
                reach.takes.setdefault(what, set()).update(targets)
            elif op is _Op.ACCEPT:
                reach.accepted.add(what)
            elif after is None and op in (_Op.NOT_AFTER, _Op.EDGE):
                reach.waiting.append(node)
            elif op is _Op.GO or _holds(op, what, before, after or 0):
                stack += (target for target in targets if target not in seen)
                seen.update(targets)
        return reach

    def work(self) -> int:
        """How many nodes one start of the patterns visits, on the worst text there could be.

        It reads a text of which every character fits everywhere: what is alive after so many
        characters of any text is among what is alive here. Ends only for patterns that end.
        """
        total = 0
        nodes = set(self._entries)
        while nodes:
            stack = list(nodes)
            taken: set[int] = set()
            while stack:
                op, _, targets = self._program[stack.pop()]
                fresh = [target for target in targets if target not in nodes]
                if op is _Op.TAKE:
                    taken.update(targets)
                else:
                    nodes.update(fresh)
                    stack += fresh
            total += len(nodes)
            nodes = taken
        return total

    def keep(self, size: int = 1) -> None:
        """Count what is kept, and begin anew where that is too much."""
        self._kept += size
        if self._kept > KEPT_MAX:
            self._forget()

    def _forget(self) -> None:
        self._kept = 0
        self._states: dict[tuple[frozenset[int], int, tuple[int, ...]], State] = {}
        self.starts.clear()
        self._masks: dict[str, int] = {}

    def _state(self, nodes: frozenset[int], before: int, ended: tuple[int, ...]) -> State:
        key = (nodes, before, ended)
        state = self._states.get(key)
        if state is None:
            self.keep(len(nodes))
            state = self._states[key] = State(self, nodes, before, ended)
        return state

    def _compile(self, node: Node, then: int) -> int:
        """Add a pattern's nodes, which go on to `then`; returns the first of them."""
        match node:
            case Chars():
                return self._emit(_Op.TAKE, self._class(node), then)
            case Apart(chars, before):
                number = self._class(chars)
                self._context |= 1 << number
                return self._emit(_Op.NOT_BEFORE if before else _Op.NOT_AFTER, number, then)
            case Edge():
                return self._emit(_Op.EDGE, self._word, then)
            case Seq(parts):
                for part in reversed(parts):
                    then = self._compile(part, then)
                return then
            case Alt(options):
                return self._emit(_Op.GO, 0, *(self._compile(option, then) for option in options))
            case Repeat():
                return self._repeat(node, then)

    def _repeat(self, node: Repeat, then: int) -> int:
        part: Callable[[int], int] = partial(self._compile, node.part)
        if isinstance(node.part, Chars):
            # Most nodes are of this kind: their class is looked up once.
            part = partial(self._emit, _Op.TAKE, self._class(node.part))
        end = then
        if node.most is None:
            loop = self._emit(_Op.GO, 0)
            self._program[loop] = (_Op.GO, 0, (part(loop), end))
            then = loop
        else:
            for _ in range(node.most - node.least):
                then = self._emit(_Op.GO, 0, part(then), end)
        for _ in range(node.least):
            then = part(then)
        return then

    def _emit(self, op: _Op, what: int, *targets: int) -> int:
        if len(self._program) >= NODES_MAX:
            raise TooLarge
        self._program.append((op, what, targets))
        return len(self._program) - 1

    def _class(self, chars: Chars) -> int:
        return self._classes.setdefault(chars, len(self._classes))


def _holds(op: _Op, what: int, before: int, after: int) -> bool:
    if op is _Op.EDGE:
        return (before ^ after) >> what & 1 == 1
    return (before if op is _Op.NOT_BEFORE else after) >> what & 1 == 0


def _split(classes: dict[Chars, int]) -> tuple[dict[str, int], list[tuple[Chars, int]]]:
    """Classes as a look-up from their characters, and those that must be asked."""
    listed: dict[str, int] = {}
    asked = []
    for chars, number in classes.items():
        if chars.ranges or chars.kinds or chars.negated or chars.fold:
            asked.append((chars, number))
        else:
            for char in chars.members:
                listed[char] = listed.get(char, 0) | 1 << number
    return listed, asked
