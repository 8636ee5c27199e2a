"""The command `softfeed copy`."""

import argparse
import sys


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Add the command to the parser of `softfeed`."""
    parser = subparsers.add_parser(
        "copy",
        help="copy a shard set to or from an object store, compared with its checksums",
        description="Copy a finished shard set to or from anything that fsspec can open (s3://, gs://, sftp://, ...; "
        "some need a package such as s3fs). Every file is compared with its checksum and read back; the manifest comes "
        "last. A copy that was stopped goes on when the same command is run again.",
    )
    parser.add_argument("source", metavar="SOURCE", help="folder or URL of a shard set")
    parser.add_argument("dest", metavar="DEST", help="folder or URL: new, empty, or an unfinished copy of this set")
    parser.add_argument("--overwrite", action="store_true", help="replace another shard set in DEST (default: refuse)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        exit status 0.

    Raises:
        ValueError, OSError: for what a user can put right, in one line.
    """
    # Here, so that `softfeed copy --help` does not wait for DALI.
    from .progress import ConversionProgress
    from .remote import copy_set

    progress = ConversionProgress()
    try:
        copy = copy_set(
            args.source,
            args.dest,
            overwrite=args.overwrite,
            report=lambda done, total: progress("copying", done, total, 0, 0),
        )
    except KeyboardInterrupt:
        raise progress.interrupted() from None
    finally:
        progress.close()
    there = f", {copy.files - copy.copied:,} were there already" if copy.copied < copy.files else ""
    sys.stdout.write(f"copied      {copy.copied:,} of {copy.files:,} files, {copy.bytes / 1e6:,.1f} MB{there}\n")
    return 0
