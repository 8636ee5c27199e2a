"""The command `softfeed verify`."""

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .verification.verify import Report

_NAMED = 3  # files that the advice names

_EXAMPLES = """examples:
  softfeed verify shards/train
  softfeed verify shards/train --decode --json > report.json

The exit status is 0 if the set is fine, 1 if anything is wrong with it, 2 if there is no set.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Add the command to the parser of `softfeed`."""
    parser = subparsers.add_parser(
        "verify",
        help="find anything that is wrong with a shard set",
        description="Check a shard set: the manifest, every checksum, the table of samples, every index against its "
        "shard, and every record, byte by byte. Nothing is changed unless --repair is given.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("set", metavar="SET", help="folder that softfeed convert wrote")
    parser.add_argument(
        "--decode",
        action="store_true",
        help="decode every image with the decoder used in training (default: read only the headers of images)",
    )
    parser.add_argument("--json", action="store_true", help="report as JSON (default: for people)")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="write anew what follows from whole shards: indexes, samples.npy, and of dataset.json what other files "
        "tell; shards are never touched (default: change nothing)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        exit status: 0 if nothing is wrong, else 1.

    Raises:
        ValueError, OSError: for what a user can put right, in one line.
    """
    # Here, so that `softfeed verify --help` does not wait for DALI.
    from .progress import ConversionProgress
    from .verification.repair import repair
    from .verification.verify import verify

    progress = ConversionProgress()
    check = repair if args.repair else verify
    try:
        report = check(args.set, decode=args.decode, workers=args.workers, progress=progress)
    finally:
        progress.close()
    if args.json:
        sys.stdout.write(json.dumps(report.to_json(), indent=1) + "\n")
    else:
        sys.stdout.write(summary(report, after_repair=args.repair))
    return 0 if report.ok else 1


def summary(report: "Report", *, after_repair: bool = False) -> str:
    """A report as lines for people; `after_repair` if what can be repaired has been."""
    images = "every image decoded" if report.decoded else "of images only the headers read"
    count = len(report.findings) + sum(report.unlisted.values())
    rows = {
        "shard set": str(report.folder),
        "checked": f"{report.samples:,} samples in {report.shards:,} shards, {report.bytes / 1e6:,.1f} MB, {images}",
        "problems": f"{count:,}" if count else "none",
        "took": f"{report.elapsed_s:.1f} s",
    }
    lines = [f"{name:<11} {value}" for name, value in rows.items()]
    lines += [f"  repaired: {what}" for what in report.repaired]
    lines += [f"  not repaired: {what}" for what in report.unrepaired]
    files = list(dict.fromkeys(finding.file for finding in report.findings))
    for file in files:
        lines += [f"  {finding}" for finding in report.findings if finding.file == file]
        if more := report.unlisted.get(file):
            lines.append(f"  {file}: ... and {more:,} more")
    lines += _advice(report, files, after_repair=after_repair)
    return "\n".join(lines) + "\n"


def _advice(report: "Report", files: "Sequence[str]", *, after_repair: bool) -> list[str]:
    """What to do about files with problems, a line for each kind of them."""
    from .containers.formats import CONTAINERS
    from .manifest import MANIFEST_FILE, NAMES_FILE, SAMPLES_FILE

    sources = (*(container.suffix for container in CONTAINERS.values()), NAMES_FILE)
    lost = [file for file in files if file.endswith(sources)]
    derived = [file for file in files if file in (MANIFEST_FILE, SAMPLES_FILE) or file.endswith(".idx")]
    lines = []
    if lost:
        named = ", ".join(lost[:_NAMED]) + (f" and {len(lost) - _NAMED:,} more" if len(lost) > _NAMED else "")
        never = "--repair never changes shards: " if after_repair else ""
        lines.append(f"what to do  {never}copy {named} anew from where the set came from, or convert again")
    if derived and not after_repair:
        lines.append(
            f"what to do  softfeed verify --repair {report.folder} writes {derived[0]} "
            f"{'and others ' if len(derived) > 1 else ''}anew, as far as whole shards prove what was there"
        )
    return lines
