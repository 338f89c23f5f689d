"""SnapStart: what happens between init and the first invocation of a snapshotted environment.

The hooks are those of AWS's `snapshot_restore_py`, which the managed runtimes bring along, and
they run as in AWS's own runtime client: before the snapshot last registered first, after the
restore in order.
"""

import importlib
import random
from typing import Any

from shared.runtime import report
from shared.runtime.client import RuntimeApi


def pause(api: RuntimeApi) -> bool:
    """Run the hooks around the snapshot; False when one failed, which Lambda has then been told.

    `restore_next` returns in each restored copy: the snapshot is taken while it waits.
    """
    try:
        # Imported here: other functions never pay for it.
        hooks: Any = importlib.import_module("snapshot_restore_py")
        for hook, args, kwargs in reversed(hooks.get_before_snapshot()):
            hook(*args, **kwargs)
        api.restore_next()
        random.seed()  # or all copies would wait for the same times, and choose the same seats
    except Exception as error:  # noqa: BLE001 - whatever a hook raises is told to Lambda
        report.log_failure("A hook before the snapshot failed", error, detail=str(error))
        api.init_error(error, "Runtime.BeforeSnapshotError")
        return False
    try:
        for hook, args, kwargs in hooks.get_after_restore():
            hook(*args, **kwargs)
    except Exception as error:  # noqa: BLE001
        report.log_failure("A hook after the restore failed", error, detail=str(error))
        api.restore_error(error, "Runtime.AfterRestoreError")
        return False
    return True
