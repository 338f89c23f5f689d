"""What a deployment may choose: the context of `cdk.json` or of `cdk deploy -c key=value`."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self, cast

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


SNAPSHOT: Literal["snapshot"] = "snapshot"
MANY = 1_000_000
CHOOSING = ("stage", "stages", "defaults")
MEMORY_MB = (128, 10240)
Edge = Literal["none", "open", "closed"]
EDGES: tuple[Edge, ...] = ("none", "open", "closed")
Observability = Literal["none", "dashboard", "full"]
OBSERVABILITY: tuple[Observability, ...] = ("none", "dashboard", "full")
# What CloudFront uses it takes from here, wherever the stack is.
GLOBAL = "us-east-1"


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
    slow_first_token_s: int
    openai_base_url: str
    openai_secret_name: str
    bedrock_models: tuple[str, ...]
    edge: Edge
    models: tuple[str, ...]
    domain_name: str
    certificate_arn: str
    firewall: str
    firewall_requests: int
    stream_concurrency: int
    api_concurrency: int
    produce_concurrency: int
    stream_warm: int | Literal["snapshot"]
    shift: str
    max_read_units: int
    max_write_units: int
    observability: Observability
    alarm_email: str
    otlp_endpoint: str
    otlp_headers_secret: str

    @classmethod
    def from_context(cls, context: Mapping[str, object]) -> Self:
        """Read and check every key; `-c` on the command line makes each value a string."""
        read = _Reader(_chosen(context))
        config = cls(
            stack_name=read.text("stackName", r"[A-Za-z][A-Za-z0-9-]{0,127}", "a stack name"),
            disposable=read.flag("disposable"),
            log_retention=read.retention("logRetentionDays"),
            stream_memory_mb=read.within("streamMemoryMb", *MEMORY_MB),
            api_memory_mb=read.within("apiMemoryMb", *MEMORY_MB),
            produce_memory_mb=read.within("produceMemoryMb", *MEMORY_MB),
            openai_base_url=read.text("openaiBaseUrl", r"(https?://[^\s/]+\S*)?", "a URL or empty"),
            slow_first_token_s=read.within("slowFirstTokenS", 1, 900),
            openai_secret_name=read.secret("openaiSecretName"),
            bedrock_models=read.names(
                "bedrockModels",
                r"[a-z0-9-]+\.[\w.:-]+",
                "a list of Bedrock model or inference profile ids",
            ),
            edge=cast("Edge", read.text("edge", "|".join(EDGES), f"one of {', '.join(EDGES)}")),
            models=read.names("models", r"(demo|openai/|bedrock/)\S*", "a list of names of models"),
            domain_name=read.text(
                "domainName", r"(([a-z0-9-]{1,63}\.)+[a-z]{2,63})?", "a name such as ai.example.com"
            ),
            certificate_arn=read.text(
                "certificateArn",
                rf"(arn:aws[a-z-]*:acm:{GLOBAL}:\d{{12}}:certificate/[\w-]+)?",
                f"the ARN of a certificate in {GLOBAL}, where CloudFront looks for it",
            ),
            firewall=read.text(
                "firewall",
                rf"none|managed|arn:aws[a-z-]*:wafv2:{GLOBAL}:\d{{12}}:global/webacl/[\w-]+/[\w-]+",
                f"none, managed, or the ARN of a web ACL for CloudFront, which is in {GLOBAL}",
            ),
            firewall_requests=read.within("firewallRequests", 10, 2_000_000_000),
            stream_concurrency=read.within("streamConcurrency", 0, MANY),
            api_concurrency=read.within("apiConcurrency", 0, MANY),
            produce_concurrency=read.within("produceConcurrency", 0, MANY),
            stream_warm=read.warm("streamWarm"),
            shift=read.text("shift", "none|canary|linear", "one of none, canary, linear"),
            max_read_units=read.within("maxReadUnits", 0, MANY),
            max_write_units=read.within("maxWriteUnits", 0, MANY),
            observability=cast(
                "Observability",
                read.text(
                    "observability", "|".join(OBSERVABILITY), f"one of {', '.join(OBSERVABILITY)}"
                ),
            ),
            alarm_email=read.text("alarmEmail", r"([^\s@]+@[^\s@]+)?", "an address or empty"),
            # Whoever may look at a function sees its environment: what is secret goes elsewhere.
            otlp_endpoint=read.text(
                "otlpEndpoint",
                r"(https://[^\s/@?#]+(/[^\s@?#]*)?)?",
                "an https URL without user, query or fragment, or empty",
            ),
            otlp_headers_secret=read.secret("otlpHeadersSecret"),
        )
        config._check()
        return config

    def _check(self) -> None:
        """Raise `ContextError` for values that do not go together."""
        if self.openai_secret_name and not self.openai_base_url:
            raise ContextError("openaiSecretName needs openaiBaseUrl: whose key is it?")
        if self.otlp_headers_secret and not self.otlp_endpoint:
            raise ContextError("otlpHeadersSecret needs otlpEndpoint: whose headers are they?")
        if bool(self.domain_name) != bool(self.certificate_arn):
            raise ContextError("domainName and certificateArn go together: set both, or none")
        if self.edge == "none" and (self.domain_name or self.firewall != "none"):
            raise ContextError("domainName and firewall need an edge: set edge to open or closed")
        warm, most = self.stream_warm, self.stream_concurrency
        if most and isinstance(warm, int) and warm > most:
            raise ContextError(f"streamWarm is {warm}, and streamConcurrency lets only {most} run")
        if self.alarm_email and self.observability != "full":
            raise ContextError("alarmEmail needs alarms: set observability to full")
        # The CDK's command line tells where it deploys to.
        region = os.environ.get("CDK_DEFAULT_REGION", GLOBAL)
        if self.firewall == "managed" and region != GLOBAL:
            raise ContextError(
                f"firewall=managed is for a stack in {GLOBAL}, where CloudFront wants its web ACL, "
                f"and not in {region}: make one there, and set firewall to its ARN"
            )


def _chosen(context: Mapping[str, object]) -> Callable[[str], object]:
    """What `-c` says, else what the stage does, else the default."""
    stage, stages, defaults = (context.get(key) for key in CHOOSING)
    if not isinstance(stages, dict) or not isinstance(defaults, dict):
        raise ContextError("cdk.json needs the objects stages and defaults in its context")
    if stage and stage not in stages:
        raise _wrong("stage", f"one of {', '.join(stages)}, or empty", stage)
    of_stage = stages[stage] if stage else {}
    if strange := of_stage.keys() - defaults.keys():
        raise ContextError(f"stages.{stage} has no such setting: {', '.join(sorted(strange))}")

    # What the CDK keeps there for itself has a colon or a hyphen in its name.
    named = {key for key in context if key.isalnum()}
    if strange := named - defaults.keys() - set(CHOOSING):
        raise ContextError(f"there is no such setting: {', '.join(sorted(strange))}")

    def chosen(key: str) -> object:
        said = context.get(key)
        return of_stage.get(key, defaults.get(key)) if said is None else said

    return chosen


@dataclass(frozen=True, slots=True)
class _Reader:
    get: Callable[[str], object]

    def text(self, key: str, pattern: str, wanted: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise _wrong(key, wanted, value)
        return value

    def secret(self, key: str) -> str:
        return self.text(key, r"[A-Za-z0-9/_+=.@-]{0,512}", "a secret's name or empty")

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

    def within(self, key: str, least: int, most: int) -> int:
        wanted = f"a whole number from {least} to {most}"
        number = self.number(key, wanted)
        if not least <= number <= most:
            raise _wrong(key, wanted, number)
        return number

    def warm(self, key: str) -> int | Literal["snapshot"]:
        """How many environments are kept ready, or that they start from a snapshot."""
        return SNAPSHOT if self.get(key) == SNAPSHOT else self.within(key, 0, MANY)

    def retention(self, key: str) -> RetentionDays:
        wanted = f"one of {', '.join(map(str, RETENTION))}"
        days = self.number(key, wanted)
        if days not in RETENTION:
            raise _wrong(key, wanted, days)
        return RETENTION[days]

    def names(self, key: str, pattern: str, wanted: str) -> tuple[str, ...]:
        """A list, or what a command line can hold: the same by commas."""
        value = self.get(key)
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list):
            raise _wrong(key, wanted, value)
        for name in value:
            if not isinstance(name, str) or not re.fullmatch(pattern, name):
                raise _wrong(key, wanted, name)
        return tuple(dict.fromkeys(value))


def _wrong(key: str, wanted: str, value: object) -> ContextError:
    return ContextError(f"{key} must be {wanted}, not {value!r}")
