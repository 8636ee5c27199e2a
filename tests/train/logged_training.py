"""`softfeed ARGUMENTS`, with a line in a log for each batch that training gets: epoch, step, rank and samples."""

import json
import os
import sys
import time

from softfeed.pipelines import Loader
from softfeed.train.cli import main


class LoggedLoader(Loader):
    """A loader whose training batches are written down before they are handed over."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options, index=True)

    def __iter__(self):
        epoch, position = self._next
        for step, batch in enumerate(super().__iter__(), position // (self.batch_size * self.world_size)):
            if self.recipe.training:
                time.sleep(0.02)  # for the run to last longer than it takes to kill it
                with open(sys.argv[1], "a") as log:  # noqa: PTH123 - one write of one line, whole even if killed
                    log.write(json.dumps([epoch, step, int(os.environ.get("RANK", "0")), batch.index.tolist()]) + "\n")
            yield batch


if __name__ == "__main__":
    import softfeed.pipelines as pipelines

    pipelines.Loader = LoggedLoader
    sys.exit(main(sys.argv[2:]))
