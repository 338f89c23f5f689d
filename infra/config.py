"""What a deployment may choose: the context of `cdk.json` or of `cdk deploy -c key=value`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from aws_cdk.aws_logs import RetentionDays

RETENTION = {
    1: RetentionDays.ONE_DAY,
    3: RetentionDays.THREE_DAYS,
    7: RetentionDays.ONE_WEEK,
    14: RetentionDays.TWO_WEEKS,
    30: RetentionDays.ONE_MONTH,
    90: RetentionDays.THREE_MONTHS,
    180: RetentionDays.SIX_MONTHS,
    365: RetentionDays.ONE_YEAR,
    731: RetentionDays.TWO_YEARS,
    1827: RetentionDays.FIVE_YEARS,
    3653: RetentionDays.TEN_YEARS,
}


class ContextError(ValueError):
    """A context value that cannot be deployed; its text is one line for the person who set it."""


@dataclass(frozen=True, slots=True)
class Config:
    """The checked context. Defaults stand in `cdk.json`, where whoever deploys looks for them."""

    stack_name: str
    disposable: bool
    log_retention: RetentionDays
    stream_memory_mb: int
    api_memory_mb: int
    produce_memory_mb: int
    openai_base_url: str
    openai_secret_name: str
    bedrock_models: tuple[str, ...]

    @classmethod
    def from_context(cls, get: Callable[[str], object]) -> Self:
        """Read and check every key; `-c` on the command line makes each value a string."""
        read = _Reader(get)
        config = cls(
            stack_name=read.text("stackName", r"[A-Za-z][A-Za-z0-9-]{0,127}", "a stack name"),
            disposable=read.flag("disposable"),
            log_retention=read.retention("logRetentionDays"),
            stream_memory_mb=read.memory("streamMemoryMb"),
            api_memory_mb=read.memory("apiMemoryMb"),
            produce_memory_mb=read.memory("produceMemoryMb"),
            openai_base_url=read.text("openaiBaseUrl", r"(https?://[^\s/]+\S*)?", "a URL or empty"),
            openai_secret_name=read.text(
                "openaiSecretName", r"[A-Za-z0-9/_+=.@-]{0,512}", "a secret's name or empty"
            ),
            bedrock_models=read.models("bedrockModels"),
        )
        if config.openai_secret_name and not config.openai_base_url:
            raise ContextError("openaiSecretName needs openaiBaseUrl: whose key is it?")
        return config


@dataclass(frozen=True, slots=True)
class _Reader:
    get: Callable[[str], object]

    def text(self, key: str, pattern: str, wanted: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise _wrong(key, wanted, value)
        return value

    def flag(self, key: str) -> bool:
        value = self.get(key)
        if value in (True, "true"):
            return True
        if value in (False, "false"):
            return False
        raise _wrong(key, "true or false", value)

    def number(self, key: str, wanted: str) -> int:
        value = self.get(key)
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}(\.0)?", str(value)):
            raise _wrong(key, wanted, value)
        return int(float(str(value)))

    def memory(self, key: str) -> int:
        wanted = "a whole number from 128 to 10240"
        megabytes = self.number(key, wanted)
        if not 128 <= megabytes <= 10240:
            raise _wrong(key, wanted, megabytes)
        return megabytes

    def retention(self, key: str) -> RetentionDays:
        wanted = f"one of {', '.join(map(str, RETENTION))}"
        days = self.number(key, wanted)
        if days not in RETENTION:
            raise _wrong(key, wanted, days)
        return RETENTION[days]

    def models(self, key: str) -> tuple[str, ...]:
        """A list, or what a command line can hold: the same by commas."""
        wanted = "a list of Bedrock model or inference profile ids"
        value = self.get(key)
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list):
            raise _wrong(key, wanted, value)
        for model in value:
            if not isinstance(model, str) or not re.fullmatch(r"[a-z0-9-]+\.[\w.:-]+", model):
                raise _wrong(key, wanted, model)
        return tuple(dict.fromkeys(value))


def _wrong(key: str, wanted: str, value: object) -> ContextError:
    return ContextError(f"{key} must be {wanted}, not {value!r}")
