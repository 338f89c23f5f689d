"""The operator's commands, as they are typed. What each does is imported when it is asked for."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from local import moments, options
from local.document import Assignment

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Commands = _SubParsersAction[ArgumentParser]

_SCOPES = ("stream", "read", "admin")


def add(commands: "Commands") -> None:
    """Add what an operator types to the commands of `sluice`."""
    where, json = _where(), _json()
    _add_tenant(_group(commands, "tenant", "who may use Sluice, and how much"), where, json)
    _add_key(_group(commands, "key", "what a tenant's programs show"), where, json)
    usage = commands.add_parser(
        "usage", help="what tenants have used, and what is left", parents=[where, json]
    )
    usage.add_argument("tenant", nargs="?", help="all where none is named")
    usage.set_defaults(command=lazily("usage", "usage"))
    _add_smoke(commands, where, json)
    _add_cost(commands, json)
    _add_audit(
        _group(commands, "audit", "who did what, and whether that still stands"), where, json
    )
    _add_experiment(_group(commands, "experiment", "pacings, side by side"), where, json)


def _add_tenant(tenant: "Commands", where: ArgumentParser, json: ArgumentParser) -> None:
    for name, does, about in (
        ("add", "add", "make a tenant, with the defaults where nothing else is said"),
        ("set", "change", "change settings: models+=demo limits.tokens_per_day=none"),
    ):
        parser = tenant.add_parser(name, help=about, parents=[where, json])
        parser.add_argument("tenant")
        parser.add_argument(
            "assignments",
            nargs="*",
            type=Assignment.parse,
            metavar="NAME=VALUE",
            default=[],
            help="by the names of `tenant show`; of lists also NAME+=VALUE and NAME-=VALUE; "
            "`none` is no value",
        )
        parser.add_argument(
            "--file", metavar="FILE", help="a whole document in JSON; - reads standard input"
        )
        parser.set_defaults(command=lazily("tenants", does), parser=parser)
    parser = tenant.add_parser("show", help="all settings of a tenant", parents=[where, json])
    parser.add_argument("tenant")
    parser.set_defaults(command=lazily("tenants", "show"))
    parser = tenant.add_parser("list", help="all tenants", parents=[where, json])
    parser.set_defaults(command=lazily("tenants", "listed"))
    parser = tenant.add_parser("suspend", help="stop everything of a tenant", parents=[where])
    parser.add_argument("tenant")
    parser.add_argument("--resume", action="store_true", help="let it go on instead")
    parser.set_defaults(command=lazily("tenants", "suspend"))
    parser = tenant.add_parser("remove", help="erase a tenant but for its audit", parents=[where])
    parser.add_argument("tenant")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(command=lazily("tenants", "remove"))


def _add_key(key: "Commands", where: ArgumentParser, json: ArgumentParser) -> None:
    parser = key.add_parser(
        "add", help="make a key for a tenant and print it, this once", parents=[where]
    )
    parser.add_argument("tenant", help="made with the defaults where there is none of that name")
    parser.add_argument(
        "--scope", type=_scopes, metavar="S,S", help=f"of {','.join(_SCOPES)}; default stream,read"
    )
    parser.add_argument("--user", help="a user of the tenant: the key sees their streams only")
    parser.add_argument(
        "--expires", type=moments.future, metavar="WHEN", help="30d, 2027-01-31; default never"
    )
    parser.add_argument("--label", default="", metavar="TEXT", help="what it is for")
    parser.add_argument("--key", help="this one instead of a random one")
    parser.set_defaults(command=lazily("keys", "add"))
    parser = key.add_parser("list", help="a tenant's keys", parents=[where, json])
    parser.add_argument("tenant")
    parser.set_defaults(command=lazily("keys", "listed"))
    parser = key.add_parser("revoke", help="end a key", parents=[where])
    parser.add_argument("tenant")
    parser.add_argument("id", help="as `key list` shows it")
    parser.set_defaults(command=lazily("keys", "revoke"))


def _add_smoke(commands: "Commands", where: ArgumentParser, json: ArgumentParser) -> None:
    parser = commands.add_parser(
        "smoke",
        help="try a deployment, once it is there: exits with 1 on a miss",
        parents=[where, json],
    )
    parser.add_argument("url", type=options.url, help="where answers stream")
    parser.add_argument("--api", type=options.url, help="where all else is, if not there, too")
    parser.add_argument(
        "--key", help="try with this key; without one a tenant is made for it, and removed"
    )
    parser.set_defaults(command=lazily("smoke", "smoke"))


def _add_cost(commands: "Commands", json: ArgumentParser) -> None:
    parser = commands.add_parser(
        "cost", help="what answers cost on AWS, without the model", parents=[json]
    )
    load = parser.add_argument_group("a month, foreseen")
    load.add_argument("--answers", type=options.positive, default=100_000, metavar="N")
    load.add_argument("--tokens", type=_tokens, default=500, metavar="N", help="an answer's (500)")
    load.add_argument("--rate", type=_above_0, default=50.0, metavar="N", help="tokens/s (50)")
    load.add_argument("--ttft", type=_number, default=0.8, metavar="S", help="to the first (0.8)")
    load.add_argument("--memory", type=_memory, default=256, metavar="MB", help="MB (256)")
    load.add_argument(
        "--polled", type=_share, default=0.0, metavar="SHARE", help="of the answers, 0 to 1 (0)"
    )
    load.add_argument(
        "--followers", type=_number, default=0.0, metavar="N", help="others for each answer (0)"
    )
    counted = parser.add_argument_group("or what was used")
    counted.add_argument("--stack", metavar="NAME", help="a deployed stack, by CloudWatch's counts")
    counted.add_argument("--days", type=_days, default=30, metavar="N", help="the last N days (30)")
    counted.add_argument("--profile", help="AWS profile, with --stack")
    counted.add_argument("--region", help="AWS region, with --stack")
    parser.set_defaults(command=lazily("cost", "cost"))


def _add_audit(audit: "Commands", where: ArgumentParser, json: ArgumentParser) -> None:
    since = ArgumentParser(add_help=False)
    since.add_argument(
        "--since", type=moments.past, metavar="WHEN", help="24h, 2027-01-31, 2027-01-31T10:30"
    )
    parser = audit.add_parser("show", help="entries, oldest first", parents=[where, since, json])
    parser.add_argument("tenant")
    parser.add_argument("--stream", metavar="ID", help="of this stream only")
    parser.add_argument("--until", type=moments.past, metavar="WHEN")
    parser.add_argument(
        "--limit", type=_limit, default=100, metavar="N", help="default 100; `export` has all"
    )
    parser.set_defaults(command=lazily("audit", "show"))
    parser = audit.add_parser(
        "verify", help="find what was changed, removed or reordered", parents=[where, since, json]
    )
    parser.add_argument("tenant", nargs="?")
    parser.add_argument("--stream", metavar="ID", help="of this stream only")
    parser.add_argument("--file", metavar="FILE", help="what `audit export` wrote; - reads it")
    parser.set_defaults(command=lazily("verification", "run"), parser=parser)
    parser = audit.add_parser(
        "export", help="write the audit as JSON lines", parents=[where, since]
    )
    parser.add_argument("tenant")
    parser.add_argument("--output", type=options.file, metavar="FILE")
    parser.set_defaults(command=lazily("audit", "export"))


def _add_experiment(experiment: "Commands", where: ArgumentParser, json: ArgumentParser) -> None:
    parser = experiment.add_parser(
        "report", help="what became of the answers of each variant", parents=[where, json]
    )
    parser.add_argument("tenant")
    parser.add_argument("experiment", nargs="?", help="default: the one that is set")
    parser.add_argument("--since", type=moments.past, metavar="WHEN", help="24h, 2027-01-31")
    parser.add_argument(
        "--limit", type=_limit, default=1000, metavar="N", help="the newest N streams; 1000"
    )
    parser.set_defaults(command=lazily("experiment", "report"))


def _where() -> ArgumentParser:
    """Options that say where: see `local.where`."""
    parser = ArgumentParser(add_help=False)
    group = parser.add_argument_group("where").add_mutually_exclusive_group()
    group.add_argument("--stack", metavar="NAME", help="a deployed stack, not the local run")
    group.add_argument("--db", type=options.file, metavar="FILE", help="of the local run")
    parser.add_argument("--profile", help="AWS profile, with --stack")
    parser.add_argument("--region", help="AWS region, with --stack")
    return parser


def _json() -> ArgumentParser:
    parser = ArgumentParser(add_help=False)
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    return parser


def _group(commands: "Commands", name: str, about: str) -> "Commands":
    return commands.add_parser(name, help=about).add_subparsers(required=True, metavar="COMMAND")


def lazily(module: str, name: str) -> Callable[[Namespace], int]:
    """A command, by the module that it is imported from when it is asked for."""

    def command(options: Namespace) -> int:
        code: int = getattr(import_module(f"local.{module}"), name)(options)
        return code

    return command


def _scopes(text: str) -> frozenset[str]:
    scopes = frozenset(scope.strip() for scope in text.split(","))
    if scopes <= set(_SCOPES):
        return scopes
    raise ArgumentTypeError(f"scopes are some of {','.join(_SCOPES)}")


def _tokens(text: str) -> int:
    return _at_most(options.positive(text), 200_000)


def _memory(text: str) -> int:
    return _at_most(options.positive(text), 10_240)


def _days(text: str) -> int:
    return _at_most(options.positive(text), 450)


def _at_most(number: int, most: int) -> int:
    if number <= most:
        return number
    raise ArgumentTypeError(f"{most:,} is the most")


def _number(text: str) -> float:
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text):
        return float(text)
    raise ArgumentTypeError("a number from 0 to 999999 is needed")


def _above_0(text: str) -> float:
    if number := _number(text):
        return number
    raise ArgumentTypeError("a number above 0 is needed")


def _share(text: str) -> float:
    if (share := _number(text)) <= 1:
        return share
    raise ArgumentTypeError("a share is from 0 to 1")


def _limit(text: str) -> int:
    number = options.positive(text)
    if number <= 10_000:
        return number
    raise ArgumentTypeError("10,000 is the most")
