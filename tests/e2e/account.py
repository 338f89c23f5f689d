# /// script
# requires-python = ">=3.11"
# dependencies = ["ministack==1.5.33"]
# ///
"""An emulated AWS account, in an environment of its own: it pins another botocore than ours.

    GATEWAY_PORT=4566 BIND_HOST=127.0.0.1 uv run --frozen --script tests/e2e/account.py

`uv lock --script tests/e2e/account.py` renews the lockfile beside it.
"""

import runpy

if __name__ == "__main__":
    runpy.run_module("ministack", run_name="__main__", alter_sys=True)
