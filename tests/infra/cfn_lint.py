# /// script
# requires-python = ">=3.11"
# dependencies = ["cfn-lint==1.58.0"]
# ///
"""cfn-lint, in an environment of its own: it brings sympy and networkx.

    uv run --frozen --script tests/infra/cfn_lint.py TEMPLATE …

`uv lock --script tests/infra/cfn_lint.py` renews the lockfile beside it.
"""

from cfnlint.runner.cli import main  # type: ignore[import-not-found]

if __name__ == "__main__":
    main()
