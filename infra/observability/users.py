"""What the dashboard says of users: what they feel, are refused, and do not lose."""

from aws_cdk import aws_cloudwatch as cloudwatch

from infra.observability.figures import Figures
from infra.observability.graphs import Graph, Section


def felt(figures: Figures) -> Section:
    def of_stream(name: str, *percentiles: str) -> list[cloudwatch.IMetric]:
        return [figures.one(name, p, label=p, function="stream") for p in percentiles]

    deviation = figures.one("GapDeviation", "p50", label="deviation, p50", function="stream")
    polled = figures.one("TimeToFirstChunk", "p90", label="p90, polled", function="produce")
    outcomes = [
        figures.total(f"Answers{how}", label=how.lower())
        for how in ("Completed", "Cancelled", "Failed")
    ]
    return Section(
        "What users feel",
        "How long they wait, how the text then flows, and how answers end.",
        [
            [
                Graph(
                    "Time to the model's first token, ms",
                    of_stream("TimeToFirstToken", "p50", "p90", "p99"),
                ),
                Graph(
                    "Time to the first chunk, ms",
                    [*of_stream("TimeToFirstChunk", "p50", "p90", "p99"), polled],
                ),
                Graph("Answers by outcome", outcomes),
            ],
            [
                Graph(
                    "Gaps between chunks: an answer's p99, ms",
                    [*of_stream("GapP99", "p50", "p99"), deviation],
                ),
                Graph(
                    "Tokens a second, as the model says them",
                    of_stream("TokensPerSecond", "p50", "p10"),
                ),
                Graph("Failed answers by problem", [figures.each("Failures", "Sum", "problem")]),
            ],
            [
                Graph(
                    "First token by model and variant: p90, ms",
                    [figures.each("TimeToFirstToken", "p90", "model", "variant")],
                ),
                Graph(
                    "Tokens a second by model and variant: p50",
                    [figures.each("TokensPerSecond", "p50", "model", "variant")],
                ),
                Graph(
                    "Breakers that opened or closed",
                    [figures.each("BreakerChanges", "Sum", "model", "state")],
                ),
            ],
        ],
    )


def refused(figures: Figures) -> Section:
    return Section(
        "What is refused",
        "By which limit, with which problem, and what redaction took out.",
        [
            [
                Graph("Refusals by limit", [figures.each("Refusals", "Sum", "limit")]),
                Graph("Problems", [figures.each("Problems", "Sum", "function", "problem")]),
                Graph("Redactions by detector", [figures.each("Redactions", "Sum", "detector")]),
            ]
        ],
    )


def kept(figures: Figures) -> Section:
    return Section(
        "What would have been lost",
        "Producers that died or left and who went on; clients that came back, or had to poll.",
        [
            [
                Graph(
                    "Producers",
                    [
                        figures.total("TakenOver", label="died, taken over"),
                        figures.total("HandedOver", label="left in time, handed over"),
                        figures.total("Launches", label="launched"),
                        figures.total("LaunchFailures", label="could not be launched"),
                    ],
                ),
                Graph(
                    "Clients that stream",
                    [
                        figures.total("Connections", label="connections"),
                        figures.total("Resumed", label="resumed"),
                        figures.total("Interrupted", label="interrupted (at least)"),
                    ],
                ),
                Graph(
                    "Clients that poll, %",
                    [figures.percent("PollSessions", "Connections", label="polling")],
                ),
                Graph(
                    "Lag of followers, ms",
                    [
                        figures.one("LagP50", "p50", label="median", function="stream"),
                        figures.one("LagMax", "p99", label="longest, p99", function="stream"),
                    ],
                ),
            ]
        ],
    )
