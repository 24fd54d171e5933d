"""Write an embodiment document as the text that a person reads, answers and signs."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from components.data.embodiments.file import HOW_TO_ANSWER, HOW_TO_SIGN

_WIDTH = 110
_HEAD = f"""\
# What the numbers and images of one robot mean.
# Each value is measured, as its evidence says, or open: for each open one {HOW_TO_ANSWER}.
# Then sign at the end, {HOW_TO_SIGN}; a data set is used for training only with a signed file.
# Test it:  actwright embodiment check THIS_FILE FOLDER

"""


def text_of(document: Mapping[str, Any]) -> str:
    """The YAML text of a document as `draft.draft_embodiment` makes it; short lists stay on one line."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.width, yaml.allow_unicode = 10_000, True  # a question stays on one line, which an answer replaces
    yaml.indent(mapping=2, sequence=4, offset=2)
    buffer = io.StringIO()
    yaml.dump(_commented(document), buffer)
    return _HEAD + buffer.getvalue()


def _commented(value: Any) -> Any:
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import LiteralScalarString

    if isinstance(value, Mapping):
        return CommentedMap({key: item if key == "confirm" else _commented(item) for key, item in value.items()})
    if isinstance(value, Sequence) and not isinstance(value, str):
        made = CommentedSeq([_commented(item) for item in value])
        if all(isinstance(item, int | float) for item in value):
            made.fa.set_flow_style()
        return made
    if isinstance(value, str) and len(value) > _WIDTH:
        return LiteralScalarString("\n".join(textwrap.wrap(value, _WIDTH, break_long_words=False, break_on_hyphens=False)))
    return value
