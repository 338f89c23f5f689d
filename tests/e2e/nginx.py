"""A real nginx between a client and the local run, which holds streams back as middleboxes do."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.local_run import HOST, START_S, free_port

#: A page that comes through it has its origin, so the host goes on as it was asked for.
_CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    gzip on;
    gzip_proxied any;
    gzip_types text/event-stream;
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass {url};
            proxy_http_version {http};
            proxy_set_header Host $http_host;
            proxy_buffering on;
            proxy_buffer_size 64k;
            proxy_buffers 16 1m;
            {ignored}
        }}
    }}
}}
"""


@contextmanager
def buffering_proxy(
    url: str, *, obeys: bool = False, http: str = "1.0", port: int = 0
) -> Iterator[str]:
    """An address that leads to `url`, through an nginx that buffers and compresses what it can.

    Streams arrive at their end, but where it `obeys` what they say of buffers. It asks us by
    HTTP/1.0, as nginx does where nobody says otherwise: by 1.1 it would pass on each chunk that it
    does not compress. It listens on `port`, or on one that is free. Skips the test where there is
    no nginx.
    """
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    ignored = "" if obeys else "proxy_ignore_headers X-Accel-Buffering;"
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "nginx.conf"
        file.write_text(
            _CONFIGURATION.format(
                folder=folder, host=HOST, port=port, url=url, http=http, ignored=ignored
            )
        )
        command = [nginx, "-c", str(file), "-p", folder, "-e", "stderr"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                _wait_for(port, process)
                yield f"http://{HOST}:{port}"
            finally:
                process.terminate()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        with suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.02)
    raise AssertionError("nginx did not get ready")
