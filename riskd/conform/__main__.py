"""`python -m riskd.conform`."""

import sys

from riskd.conform import main

sys.exit(main())
