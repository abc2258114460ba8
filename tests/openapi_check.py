"""Holds replies to the OpenAPI document with schemathesis.

`make openapi-check` runs it, with a schemathesis in an environment of its own. A request that the document allows may
still be refused, for a model or a rule may not fit it, so what is held is that no reply is a server's error, and that
status, type and body of every reply are documented.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from tools.server_process import answers, free_address, running

CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "allow_header_conformance",
    ]
)


def main() -> int:
    """Start a server, and let schemathesis try every operation of its document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="the executable")
    parser.add_argument("--models", type=Path, default=Path("models"), help="the folder of models")
    parser.add_argument("--schemathesis", type=Path, required=True, help="the executable of schemathesis")
    parser.add_argument("--examples", type=int, default=50, help="how many requests for each operation")
    arguments = parser.parse_args()
    address = free_address()
    url = f"http://{address}"
    command = [str(arguments.server), "serve", "--models", str(arguments.models), "--listen", address, "--log", "error"]
    command += ["--default-model", "harmless", "--calibration-seconds", "0"]
    ready = partial(answers, f"{url}/health/ready")
    with tempfile.TemporaryFile() as log, running(command, ready, log):
        run = [str(arguments.schemathesis), "run", f"{url}/openapi.json", "--checks", CHECKS, "--seed", "1"]
        run += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(arguments.examples)]
        run += ["--continue-on-failure", "--warnings", "off", "--suppress-health-check", "all"]
        return subprocess.run(run, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
