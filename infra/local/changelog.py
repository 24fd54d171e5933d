"""Join the fragments of changelog.d/ into CHANGELOG.md, under the headings of its Unreleased part, and remove them.

Run: make changelog
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
KINDS = {"added": "Added", "changed": "Changed", "fixed": "Fixed", "removed": "Removed", "wire": "Wire", "contract": "Contract"}
NAME = re.compile(rf"^[a-z0-9-]+\.({'|'.join(KINDS)})\.md$")


def fragments(folder: Path) -> list[Path]:
    """The fragments, in order of their names. Ends with exit code 1 and a message for a name that is none."""
    found = sorted(path for path in folder.glob("*") if path.name != "README.md")
    wrong = [path.name for path in found if not NAME.match(path.name)]
    if wrong:
        sys.exit(f"changelog.d: {', '.join(wrong)}: expected NAME.KIND.md with KIND one of {', '.join(KINDS)}; rename them")
    return found


def joined(changelog: str, entries: list[tuple[str, str]]) -> str:
    """The changelog with (kind, text) entries at the end of their headings in the Unreleased part; missing headings are made."""
    start = changelog.index("## [Unreleased]")
    following = re.search(r"^## ", changelog[start + 3 :], flags=re.MULTILINE)
    end = start + 3 + following.start() if following else len(changelog)
    part = changelog[start:end].rstrip("\n")
    for kind, text in entries:
        heading = f"### {KINDS[kind]}"
        if not re.search(rf"^{re.escape(heading)}$", part, flags=re.MULTILINE):
            part += f"\n\n{heading}"
        at = part.index(f"{heading}\n") if f"{heading}\n" in part else part.rindex(heading)
        after = part.find("\n### ", at + 1)
        place = len(part) if after < 0 else after
        part = f"{part[:place].rstrip()}\n{item(text)}" + ("\n" + part[place:] if after >= 0 else "")
    return changelog[:start] + part + "\n" + ("\n" + changelog[end:] if end < len(changelog) else "")


def item(text: str) -> str:
    """A fragment as one list item; its lines after the first are indented."""
    return "- " + text.strip().replace("\n", "\n  ")


def main() -> None:
    """Rewrite CHANGELOG.md and remove the fragments."""
    changelog, folder = ROOT / "CHANGELOG.md", ROOT / "changelog.d"
    found = fragments(folder)
    entries = [(path.name.split(".")[-2], path.read_text(encoding="utf-8")) for path in found]
    changelog.write_text(joined(changelog.read_text(encoding="utf-8"), entries), encoding="utf-8")
    for path in found:
        path.unlink()
    sys.stdout.write(f"joined {len(found)} fragments into CHANGELOG.md\n")


if __name__ == "__main__":
    main()
