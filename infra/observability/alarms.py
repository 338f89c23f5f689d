"""Alarms: what somebody has to look at, and from when on. Each has a page in `docs/runbooks`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns

from infra.observability.figures import PERIOD, Figures
from infra.observability.watched import Watched

PERIOD_MIN = int(PERIOD.to_minutes())
# A share says nothing of two answers, so each wants some of what it counts.
FAILED_PERCENT, FAILED_LEAST = 5, 3
TAKEN_OVER_PERCENT, TAKEN_OVER_LEAST = 1, 3
ERRORS_PERCENT, ERRORS_LEAST = 1, 5
FIRST_TOKEN_S = 10
# CloudWatch's own bound for one alarm.
METRICS_MAX = 10


@dataclass(frozen=True, slots=True)
class Alarm:
    """When one is on: where `metric` is above `above` in so many of the last periods.

    `says` tells the same to people. `silent` is whether nothing to be measured is what is wrong.
    """

    name: str
    says: str
    metric: cloudwatch.IMetric
    above: float = 0
    periods: tuple[int, int] = (2, 3)
    silent: bool = False

    @property
    def when(self) -> str:
        """What its page says, word by word."""
        on, of = self.periods
        if of == 1:
            return f"{self.says}, in the last {PERIOD_MIN} minutes."
        spans = f"{on} of {of} periods" if on < of else f"{of} consecutive periods"
        return f"{self.says}, in {spans} of {PERIOD_MIN} minutes."


def alarms(figures: Figures, watched: Watched) -> list[Alarm]:
    """All of them, in the order in which users feel what they tell of."""
    return [
        *_answers(figures),
        *_functions(watched),
        *_machinery(figures, watched),
    ]


def _answers(figures: Figures) -> list[Alarm]:
    def told(name: str, *functions: str) -> list[cloudwatch.IMetric]:
        return [figures.one(name, "Sum", function=function) for function in functions]

    failed = told("AnswersFailed", "stream", "produce", "api", "sweep")
    completed = told("AnswersCompleted", "stream", "produce")
    # `produce` finds one where Lambda tries an invocation again that has died.
    taken_over = told("TakenOver", "stream", "api", "sweep", "produce")
    first = [
        figures.one("TimeToFirstToken", "p90", function=name) for name in ("stream", "produce")
    ]
    launches = told("LaunchFailures", "stream", "produce", "api", "sweep")
    return [
        Alarm(
            "answers-failing",
            f"More than {FAILED_PERCENT} % of the answers failed, and at least {FAILED_LEAST}",
            _share(failed, failed + completed, FAILED_LEAST),
            above=FAILED_PERCENT,
        ),
        Alarm(
            "first-token-late",
            f"One answer in ten waited for its model's first token for more than {FIRST_TOKEN_S} s",
            _math(f"MAX([{', '.join(_filled(first))}])", first),
            above=FIRST_TOKEN_S * 1000,
            periods=(3, 3),
        ),
        Alarm(
            "producers-dying",
            f"More than {TAKEN_OVER_PERCENT} % of the answers lost a producer, and at least "
            f"{TAKEN_OVER_LEAST}",
            _share(taken_over, taken_over + completed, TAKEN_OVER_LEAST),
            above=TAKEN_OVER_PERCENT,
        ),
        Alarm("launches-failing", "A producer could not be launched", _sum(launches)),
        Alarm(
            "breaker-open",
            "A model's breaker opened, or opened again",
            figures.selected("BreakerChanges", "model", "state", where=("state", "opened")),
            periods=(3, 3),
        ),
    ]


def _functions(watched: Watched) -> list[Alarm]:
    urls = [watched.functions[name] for name in ("stream", "api")]
    broken = [watched.of_function(one, "Url5xxCount", "Sum") for one in urls]
    requests = [watched.of_function(one, "UrlRequestCount", "Sum") for one in urls]
    throttled = [
        function.metric_throttles(period=PERIOD, statistic="Sum")
        for function in watched.functions.values()
    ]
    return [
        Alarm(
            "requests-failing",
            f"More than {ERRORS_PERCENT} % of the requests got a status of 500 or above, and at "
            f"least {ERRORS_LEAST}",
            _share(broken, requests, ERRORS_LEAST),
            above=ERRORS_PERCENT,
        ),
        Alarm("functions-throttled", "Lambda refused to run a function", _sum(throttled)),
    ]


def _machinery(figures: Figures, watched: Watched) -> list[Alarm]:
    sweep = watched.functions["sweep"]
    kept = [
        queue.metric_approximate_number_of_messages_visible(period=PERIOD, statistic="Maximum")
        for queue in watched.failures
    ]
    failing = [
        sweep.metric_errors(period=PERIOD, statistic="Sum"),
        figures.one("SweepFailed", "Sum", function="sweep"),
    ]
    runs = sweep.metric_invocations(period=PERIOD, statistic="Sum")
    return [
        Alarm("tables-throttled", "DynamoDB refused reads or writes", _sum(watched.throttles())),
        Alarm(
            "failures-kept",
            "Failed invocations that nobody waits for lie in a queue",
            _sum(kept),
            periods=(1, 1),
        ),
        Alarm(
            "sweep-not-running",
            "The sweep did not run",
            _math("IF(m0 < 1, 1, 0)", [runs]),
            periods=(3, 3),
            silent=True,
        ),
        Alarm(
            "sweep-failing",
            "The sweep failed, or a part of it",
            _sum(failing),
            # Lambda tells of an invocation when it ends, but under the time when it began: of a
            # sweep that runs into its timeout the last period knows nothing yet.
            periods=(3, 4),
        ),
    ]


def add_alarms(stack: Stack, wanted: Sequence[Alarm], topic: sns.ITopic) -> list[cloudwatch.IAlarm]:
    """Make them, and have the topic told when each begins and when it is over."""
    return [_add(stack, alarm, topic) for alarm in wanted]


def _add(stack: Stack, alarm: Alarm, topic: sns.ITopic) -> cloudwatch.Alarm:
    on, of = alarm.periods
    missing = cloudwatch.TreatMissingData
    made = cloudwatch.Alarm(
        stack,
        "".join(part.title() for part in alarm.name.split("-")) + "Alarm",
        alarm_name=f"{stack.stack_name}-{alarm.name}",
        alarm_description=f"{alarm.when} See docs/runbooks/{alarm.name}.md",
        metric=alarm.metric,
        threshold=alarm.above,
        comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        evaluation_periods=of,
        datapoints_to_alarm=on,
        # Where nobody asks, nothing is told: a quiet night is no alarm.
        treat_missing_data=missing.BREACHING if alarm.silent else missing.NOT_BREACHING,
    )
    made.add_alarm_action(actions.SnsAction(topic))
    made.add_ok_action(actions.SnsAction(topic))
    return made


def _sum(metrics: Sequence[cloudwatch.IMetric]) -> cloudwatch.MathExpression:
    return _math(" + ".join(_filled(metrics)), metrics)


def _share(
    some: Sequence[cloudwatch.IMetric], every: Sequence[cloudwatch.IMetric], least: int
) -> cloudwatch.MathExpression:
    """How many of a hundred `some` are of `every`; 0 where there are fewer than `least`."""
    known = list(dict.fromkeys([*some, *every]))
    names = dict(zip(known, _filled(known), strict=True))
    part, whole = (" + ".join(names[metric] for metric in of) for of in (some, every))
    return _math(f"IF({part} >= {least}, 100 * ({part}) / ({whole}), 0)", known)


def _filled(metrics: Sequence[cloudwatch.IMetric]) -> list[str]:
    """Each by its name in an expression. A count of nothing is not told, and is 0."""
    return [f"FILL(m{number}, 0)" for number in range(len(metrics))]


def _math(expression: str, metrics: Sequence[cloudwatch.IMetric]) -> cloudwatch.MathExpression:
    if len(metrics) > METRICS_MAX:
        raise ValueError(f"CloudWatch takes {METRICS_MAX} metrics in one alarm: {expression}")
    using: Mapping[str, cloudwatch.IMetric] = {f"m{n}": one for n, one in enumerate(metrics)}
    return cloudwatch.MathExpression(expression=expression, using_metrics=using, period=PERIOD)
