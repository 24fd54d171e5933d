"""Every endpoint of the console, in the order of its pages."""

from __future__ import annotations

from collections.abc import Sequence

from flows.platform.wiring import Platform
from flows.web.http.endpoint import Endpoint
from flows.web.http.operator_log import OperatorLog
from flows.web.http.people import People
from flows.web.views.cells import cell_endpoints
from flows.web.views.episodes.endpoints import episode_endpoints
from flows.web.views.fleet.endpoints import fleet_endpoints
from flows.web.views.models.card import card_endpoints
from flows.web.views.models.lineage import lineage_endpoints
from flows.web.views.models.runs import run_endpoints
from flows.web.views.models.studies import study_endpoints
from flows.web.views.models.versions import model_endpoints
from flows.web.views.operators import operator_endpoints
from flows.web.views.session import session_endpoints
from flows.web.views.trials.endpoints import trial_endpoints


def console_endpoints(platform: Platform, people: People) -> Sequence[Endpoint]:
    """What the application answers: `flows.web.app` makes routes of it, `flows.web.http.openapi` the API's document."""
    return (
        *session_endpoints(people),
        *cell_endpoints(platform.settings),
        *episode_endpoints(platform),
        *trial_endpoints(platform.settings.home),
        *model_endpoints(platform.store),
        *card_endpoints(platform.store),
        *study_endpoints(platform),
        *run_endpoints(platform),
        *lineage_endpoints(platform, needs_token=people.needs_token),
        *fleet_endpoints(platform.settings, needs_token=people.needs_token),
        *operator_endpoints(OperatorLog.of_home(platform.settings.home)),
    )
