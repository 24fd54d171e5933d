"""The endpoints of episodes and failures, over one library."""

from __future__ import annotations

from collections.abc import Sequence

from flows.pipeline.episodes.annotations import Annotations
from flows.pipeline.episodes.library import episode_library
from flows.platform.wiring import Platform
from flows.web.http.endpoint import Endpoint
from flows.web.views.episodes.failures import failure_endpoints
from flows.web.views.episodes.labelling import labelling_endpoints
from flows.web.views.episodes.player import player_endpoints
from flows.web.views.episodes.stated import stated_endpoints
from flows.web.views.episodes.table import Reader, table_endpoints


def episode_endpoints(platform: Platform) -> Sequence[Endpoint]:
    """Nothing is opened or read before the first call."""
    library = episode_library(platform.settings)
    annotations = Annotations(library)
    return (
        *table_endpoints(library, Reader(library)),
        *player_endpoints(library),
        *stated_endpoints(platform, library),
        *failure_endpoints(library, annotations),
        *labelling_endpoints(library, annotations),
    )
