"""`python -m softfeed.benchmarks.peers DATA ...` is `softfeed bench DATA --peers ...`."""

import sys

from ...train.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:], "--peers"]))
