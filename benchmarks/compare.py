"""Say how two results of the same benchmark differ.

python benchmarks/compare.py BEFORE.json AFTER.json
"""

import json
import sys
from pathlib import Path


def compare(before: Path, after: Path) -> str:
    """Return a table of the rows that both files have, with the ratio of their times."""
    old, new = (json.loads(file.read_text()) for file in (before, after))
    times = {(row["row"], row["dtype"]): row["ms"] for row in old["rows"] if "ms" in row}
    lines = [f"before: {old['commit']}, {old['hardware']}, {old['date']}"]
    lines += [f"after:  {new['commit']}, {new['hardware']}, {new['date']}", ""]
    lines += ["| row | dtype | before, ms | after, ms | times as fast |", "|---|---|---|---|---|"]
    for row in new["rows"]:
        key = (row["row"], row.get("dtype"))
        if key in times:
            was = times[key]
            ratio = was / row["ms"]
            lines.append(f"| {key[0]} | {key[1]} | {was:.3g} | {row['ms']:.3g} | {ratio:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(compare(Path(sys.argv[1]), Path(sys.argv[2])))
