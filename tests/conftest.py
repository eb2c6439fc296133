"""What all tests share."""

import os

from hypothesis import settings

# Timing is no verdict on a shared machine. CI draws the same examples each time, so that a failure
# there is the change's; elsewhere each run searches further.
settings.register_profile("search", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "search")
