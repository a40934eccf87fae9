"""`python -m hostile`: many bad inputs, and what the command line makes of each."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hostile.campaign import Campaign, Result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="this one alone, with all that it says")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        campaign = Campaign(Path(folder), options.seed)
        if options.only is not None:
            print(campaign.show(options.only))
            return 0
        results = [told(campaign.run(number)) for number in range(options.first, options.first + options.count)]
        left = campaign.left_running()
    bad = [result for result in results if result.complaints]
    codes = Counter(result.code for result in results)
    slowest, largest = max(r.seconds for r in results), max(r.megabytes for r in results)
    ends = ", ".join(f"{count} with {code}" for code, count in sorted(codes.items()))
    print(f"{len(results)} bad inputs: {ends}; at most {slowest:.1f} s of CPU and {largest:.0f} MB; {len(bad)} wrong")
    print(f"left running: {left}" if left else "nothing left running")
    return bool(bad or left)


def told(result: Result) -> Result:
    """The result, printed at once if there is something wrong with it."""
    if result.complaints:
        print(f"{result.number:5} {result.maker:12} {result.what}", *result.complaints, sep="\n      ", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
