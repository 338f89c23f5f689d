"""An experiment: some of a tenant's answers are paced otherwise, to see what readers make of it.

Who is given which variant is decided by a hash, so that a user keeps it for as long as the
experiment has its name and its variants; where a caller is no user, each stream is for itself. The
stream keeps its variant, and so does whoever takes it over. A request that sets its own pacing
takes no part.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Self

from shared import fields
from shared.errors import InvalidRequest
from shared.pacing import Pacing

VARIANTS_MAX = 5
WEIGHT_MAX = 1000
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class Variant:
    """Of all weights, the part `weight` of who takes part has this pacing."""

    name: str
    pacing: Pacing
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Experiment:
    name: str
    variants: tuple[Variant, ...]

    @classmethod
    def from_document(cls, value: Any, path: str) -> Self | None:
        """Check a document: `{"name", "variants": [{"name", "weight", "pacing"}, …]}`, or null.

        Raises `InvalidRequest`.
        """
        if value is None:
            return None
        document = fields.mapping(value, path)
        fields.known(document, ("name", "variants"), path)
        listed = fields.items(
            document.get("variants"), f"{path}.variants", least=2, most=VARIANTS_MAX
        )
        variants = tuple(_variant(v, f"{path}.variants[{i}]") for i, v in enumerate(listed))
        if len({variant.name for variant in variants}) != len(variants):
            raise InvalidRequest(f"`{path}.variants` has a name twice.", field=f"{path}.variants")
        return cls(_name(document.get("name"), f"{path}.name"), variants)

    def to_document(self) -> dict[str, Any]:
        variants = [
            {"name": v.name, "weight": v.weight, "pacing": v.pacing.to_document()}
            for v in self.variants
        ]
        return {"name": self.name, "variants": variants}

    def assign(self, tenant: str, subject: str) -> Variant:
        """The variant of a subject, always the same: in a long row of them by their weights."""
        told = f"{self.name}\0{tenant}\0{subject}".encode()
        drawn = int.from_bytes(hashlib.sha256(told).digest()[:8], "big")
        place = drawn % sum(variant.weight for variant in self.variants)
        for variant in self.variants:
            place -= variant.weight
            if place < 0:
                break
        return variant

    def label(self, variant: Variant) -> str:
        """How records and metrics name a variant."""
        return f"{self.name}/{variant.name}"


def _variant(value: Any, path: str) -> Variant:
    document = fields.mapping(value, path)
    fields.known(document, ("name", "weight", "pacing"), path)
    return Variant(
        _name(document.get("name"), f"{path}.name"),
        Pacing.from_document(document.get("pacing", {}), f"{path}.pacing"),
        fields.whole(document.get("weight", 1), f"{path}.weight", least=1, most=WEIGHT_MAX),
    )


def _name(value: Any, path: str) -> str:
    name = fields.text(value, path, most=32)
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"`{path}` must be lower-case letters, digits and `-`.", field=path)
    return name
