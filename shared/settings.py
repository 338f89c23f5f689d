"""Settings: the only file that reads the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self


def _setting(name: str, default: str, about: str) -> Any:
    return field(default=default, metadata={"env": name, "about": about})


@dataclass(frozen=True, slots=True)
class Settings:
    """One field a setting; its environment variable, default and meaning stand beside it.

    Everything is a string here, empty when unset: what reads a setting checks its own value.
    """

    streams_table: str = _setting(
        "SLUICE_STREAMS_TABLE", "sluice-streams", "Table of records and summaries"
    )
    tenants_table: str = _setting(
        "SLUICE_TENANTS_TABLE", "sluice-tenants", "Table of tenants, keys and idempotency keys"
    )
    audit_table: str = _setting(
        "SLUICE_AUDIT_TABLE", "sluice-audit", "Table of who did what, to which stream, and when"
    )
    dynamodb_endpoint: str = _setting(
        "SLUICE_DYNAMODB_ENDPOINT", "", "Another DynamoDB than the region's, as a URL"
    )
    produce_function: str = _setting(
        "SLUICE_PRODUCE_FUNCTION",
        "",
        "Name of the function that produces where nobody holds the connection",
    )
    openai_base_url: str = _setting(
        "SLUICE_OPENAI_BASE_URL",
        "",
        "Base URL of an OpenAI-compatible upstream; enables `openai/…`",
    )
    openai_api_key: str = _setting(
        "SLUICE_OPENAI_API_KEY", "", "Its key, for local runs; on AWS use the secret below"
    )
    openai_api_key_secret: str = _setting(
        "SLUICE_OPENAI_API_KEY_SECRET", "", "ARN of the Secrets Manager secret that holds its key"
    )
    bedrock_models: str = _setting(
        "SLUICE_BEDROCK_MODELS", "", "Bedrock model ids to serve, by commas; enables `bedrock/…`"
    )
    bedrock_endpoint: str = _setting(
        "SLUICE_BEDROCK_ENDPOINT", "", "Another Bedrock runtime than the region's, as a URL"
    )
    slow_first_token_s: str = _setting(
        "SLUICE_SLOW_FIRST_TOKEN_S",
        "30",
        "Seconds to a first token that count as a model's failure",
    )
    edge_digest: str = _setting(
        "SLUICE_EDGE_DIGEST", "", "SHA-256 of what only the edge knows: from it, a viewer's address"
    )
    metrics_namespace: str = _setting(
        "SLUICE_METRICS_NAMESPACE", "Sluice", "Namespace of the metrics in CloudWatch"
    )
    models: str = _setting(
        "SLUICE_MODELS",
        "",
        "Models that the page offers and metrics tell apart, by commas; "
        "without, `demo` and those of Bedrock",
    )
    otlp_endpoint: str = _setting(
        "SLUICE_OTLP_ENDPOINT", "", "Base URL of an OTLP/HTTP collector; enables spans"
    )
    otlp_headers_secret: str = _setting(
        "SLUICE_OTLP_HEADERS_SECRET",
        "",
        "ARN of the Secrets Manager secret with its headers, as `name=value` by commas",
    )
    region: str = _setting("AWS_REGION", "us-east-1", "AWS region; Lambda sets it")
    version: str = _setting("SLUICE_VERSION", "dev", "What `GET /healthz` reports")

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read the environment; unset and empty both mean the default."""
        return cls(
            **{
                f.name: env[f.metadata["env"]]
                for f in fields(cls)
                if env.get(f.metadata["env"], "") != ""
            }
        )

    @property
    def offered_models(self) -> tuple[str, ...]:
        """The models among which a reader of the page may choose."""
        return _listed(self.models) or self._own_models

    @property
    def told_models(self) -> frozenset[str]:
        """The models that metrics tell apart; each of the others is `other`."""
        return frozenset((*self._own_models, *_listed(self.models)))

    @property
    def _own_models(self) -> tuple[str, ...]:
        return ("demo", *(f"bedrock/{name}" for name in _listed(self.bedrock_models)))


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())
