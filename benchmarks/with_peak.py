"""A Python script and its words enter; it runs as it would alone, and its peak memory leaves.

    python benchmarks/with_peak.py REPORT SCRIPT [WORD ...]

When the script ends, the largest resident memory its process had (VmHWM of
/proc/self/status, in bytes) is written to REPORT. Linux only. The kernel starts VmHWM anew
when a program is executed, so nothing of the caller is in it.
"""

from __future__ import annotations

import argparse
import atexit
import runpy
import sys
from pathlib import Path


def write_peak(report: Path) -> None:
    """Write VmHWM in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            report.write_text(str(int(line.split()[1]) * 1024))


def main() -> None:
    """Run the script in this process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path)
    parser.add_argument("script")
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    atexit.register(write_peak, given.report)  # first in, last out
    sys.argv = [given.script, *given.words]
    sys.path[0] = str(Path(given.script).parent)
    runpy.run_path(given.script, run_name="__main__")


if __name__ == "__main__":
    main()
