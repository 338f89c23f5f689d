"""Limits: what a tenant, each user of it and each address of its clients may use.

Some are counted over all that a subject asks for, which `quotas` does. The others bound each
request by itself: of all whom a request comes from, the tightest holds, and `Bounds` is that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Self

from shared import fields as check
from shared.errors import InvalidRequest

COUNT_MAX = 10**12
MODELS_MAX = 50


@dataclass(frozen=True, slots=True)
class Counted:
    """The limits of one subject that have counters; None: no bound.

    Tokens are those of prompts and answers together. Days and months are those of UTC.
    """

    streams_at_once: int | None = None
    starts_per_minute: int | None = None
    tokens_per_minute: int | None = None
    #: How many tokens may be used at once after a pause; as many as in a minute where not said.
    tokens_burst: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    polls_per_minute: int | None = None

    @property
    def any(self) -> bool:
        return any(getattr(self, f.name) is not None for f in fields(Counted))


@dataclass(frozen=True, slots=True)
class Limits(Counted):
    """All limits of one subject. None: no bound of its own.

    `max_tokens` bounds each answer, and is what one without a `max_tokens` of its own may say.
    `models` are names, or beginnings of names that end in `*`; none means all. `followers` is how
    many of the subject's connections may follow one stream at once. `wait_s` and `page` bound a
    poll. A connection ends, to be made anew, when its client has taken nothing for `idle_s`, and
    after `connection_s` in any case.
    """

    max_tokens: int | None = None
    models: tuple[str, ...] = ()
    followers: int | None = None
    wait_s: int | None = None
    page: int | None = None
    idle_s: int | None = None
    connection_s: int | None = None

    @property
    def counted(self) -> Counted:
        return Counted(**{f.name: getattr(self, f.name) for f in fields(Counted)})

    @classmethod
    def from_document(cls, value: Any, path: str, default: Self) -> Self:
        document = check.mapping(value, path)
        names = tuple(f.name for f in fields(cls))
        check.known(document, names, path)
        given = {n: _checked(n, document[n], f"{path}.{n}") for n in names if n in document}
        limits = replace(default, **given)
        if limits.tokens_burst is not None and limits.tokens_per_minute is None:
            raise InvalidRequest(
                f"`{path}.tokens_burst` needs `tokens_per_minute`.", field=f"{path}.tokens_burst"
            )
        return limits

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "models": list(self.models)}


#: What the limits on each request may be. The most is Sluice's own bound, where there is no other.
EACH: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "max_tokens": (1, 200_000),
        "followers": (1, 1000),
        "wait_s": (0, 20),
        "page": (1, 1000),
        "idle_s": (5, 900),
        "connection_s": (10, 900),
    }
)

#: Enough for a team, and little enough that a runaway client starves nobody.
DEFAULT_LIMITS = Limits(
    streams_at_once=100,
    starts_per_minute=600,
    wait_s=20,
    page=1000,
    idle_s=60,
    connection_s=900,
)
NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom limits are on: a `tenant`, a `user` of it, or an `address`.

    `name` tells a tenant's subjects apart, and nobody who they are; its own is the empty one.
    """

    kind: str
    name: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Bounds:
    """What holds for each request of one caller: the tightest of all its subjects' limits.

    `followers` are the bounds on those of one stream, by the names of the subjects that have one.
    """

    max_tokens: int | None
    models: tuple[tuple[str, ...], ...]
    followers: Mapping[str, int]
    wait_s: int
    page: int
    idle_s: int
    connection_s: int

    @classmethod
    def of(cls, subjects: Sequence[Subject]) -> Self:
        def tightest(name: str) -> int:
            told = (getattr(subject.limits, name) for subject in subjects)
            return min([EACH[name][1], *(int(bound) for bound in told if bound is not None)])

        bounded = any(s.limits.max_tokens is not None for s in subjects)
        followers = {s.name: s.limits.followers for s in subjects}
        return cls(
            # Who has no bound leaves it to the model how much it says.
            max_tokens=tightest("max_tokens") if bounded else None,
            models=tuple(s.limits.models for s in subjects if s.limits.models),
            followers={name: most for name, most in followers.items() if most is not None},
            wait_s=tightest("wait_s"),
            page=tightest("page"),
            idle_s=tightest("idle_s"),
            connection_s=tightest("connection_s"),
        )

    def allows(self, model: str) -> bool:
        """Whether this model may be asked for: all must let it pass."""
        return all(any(_fits(model, name) for name in names) for names in self.models)


def model_names(value: Any, path: str, most: int = MODELS_MAX) -> tuple[str, ...]:
    """Check a list of names of models."""
    listed = check.items(value, path, least=0, most=most)
    return tuple(check.text(m, f"{path}[{i}]", most=200) for i, m in enumerate(listed))


def _checked(name: str, value: Any, path: str) -> Any:
    if name == "models":
        return model_names(value, path)
    least, most = EACH.get(name, (0, COUNT_MAX))
    return None if value is None else check.whole(value, path, least=least, most=most)


def _fits(model: str, name: str) -> bool:
    return model.startswith(name[:-1]) if name.endswith("*") else model == name
