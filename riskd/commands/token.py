"""`riskd token`: make a bearer token, and the hash that identities_file holds."""

import argparse
import os
import secrets
import sys

from riskd.identities import token_hash

# So that a token that turns up where it should not is known as one.
PREFIX = "riskd_"
RANDOM_BYTES = 32

EPILOG = """examples:
  riskd token                                   show a new token, once
  riskd token --output /etc/riskd/desk.token    write it where only this user can read it

The hash goes into token_hashes of identities_file; docs/security.md says how tokens are changed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where the token goes."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--output", metavar="FILE", help="write the token to a new file, and show only its hash"
    )


def new_token() -> str:
    """Return a token of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def run(arguments: argparse.Namespace) -> int:
    """Make a token; return 1 if its file is there already or cannot be written."""
    token = new_token()
    if arguments.output is None:
        print(f"token: {token}")
    else:
        try:
            file = os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "w") as opened:
                opened.write(token + "\n")
        except OSError as error:
            print(f"riskd token: {arguments.output}: {error.strerror}", file=sys.stderr)
            return 1
    print(f'token_hashes = ["{token_hash(token)}"]')
    return 0
