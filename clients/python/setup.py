"""Generate the protobuf code before setuptools looks for the packages.

Everything else is in pyproject.toml. A source distribution contains the generated code; a
checkout makes it with the repository's generator.
"""

import subprocess
import sys
from pathlib import Path

from setuptools import setup  # type: ignore[import-untyped, unused-ignore]

HERE = Path(__file__).resolve().parent
GENERATOR = HERE.parent.parent / ".ci" / "generate_proto.py"

if __name__ == "__main__":
    if GENERATOR.is_file():
        subprocess.run([sys.executable, str(GENERATOR)], check=True)
    elif not (HERE / "riskd_client" / "v1" / "order_risk_service_pb2.py").is_file():
        sys.exit("riskd_client/v1 is missing: build from a checkout of the whole repository")
    setup()
