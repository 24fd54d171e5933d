"""The table of champions: of everybody who promotes at once one wins each number, and at every moment there is exactly one champion."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.adapters.champions.table import ChampionTable, default_url
from components.config.judging.champion_entry import ChampionEntry
from model_core.spec.errors import TrackingError
from tests.integration.loop_runs import eventually
from tests.postgres import postgres_server, programs, running_postgres


def more(count: Callable[[], int], by: int) -> None:
    """Wait until so much was added."""
    before = count()
    eventually(lambda: count() >= before + by, timeout_s=120)


def race(url: str, promotions: int, threads: int = 4) -> None:
    """Each thread promotes a version of its own after the newest entry that it sees, until there are so many promotions."""
    ChampionTable(url).add(ChampionEntry(model="arm", number=1, version=1, replaced=None, how="gate"))
    won: list[ChampionEntry] = []
    lost: Counter[int] = Counter()
    is_over, barrier = threading.Event(), threading.Barrier(threads + 1)

    def promote(who: int) -> None:
        table, place = ChampionTable(url), 0
        barrier.wait()
        while (newest := table.newest("arm")) is not None and newest.number < promotions:
            place += 1
            entry = ChampionEntry(
                model="arm", number=newest.number + 1, version=threads * place + who, replaced=newest.version, how="gate", reason=str(who)
            )
            added = table.add(entry)
            if added is None:
                lost[entry.number] += 1
            else:
                won.append(added)

    def watch() -> list[int]:
        table, numbers = ChampionTable(url), []
        barrier.wait()
        while not is_over.is_set():
            now = table.newest("arm")
            assert now is not None, "a moment without a champion"
            assert now.version is not None
            numbers.append(now.number)
        return numbers

    with ThreadPoolExecutor(threads + 1) as pool:
        watching = pool.submit(watch)
        for done in [pool.submit(promote, who) for who in range(threads)]:
            done.result()
        is_over.set()
        seen = watching.result()
    history = ChampionTable(url).history("arm")
    assert [one.number for one in history] == list(range(1, len(history) + 1))
    assert len(history) >= promotions
    assert sorted(one.number for one in won) == list(range(2, len(history) + 1)), "a number with no winner, or with two"
    assert history[1:] == sorted(won, key=lambda one: one.number)
    assert all(after.replaced == before.version for before, after in itertools.pairwise(history))
    assert seen == sorted(seen), "a number that went back"
    assert lost, "no two ever met: no race"


def test_of_100_promotions_at_once_each_has_one_winner_and_there_is_always_one_champion(tmp_path: Path) -> None:
    race(f"sqlite:///{tmp_path}/champions.db", 100)


@pytest.mark.soak
def test_of_1000_promotions_at_once_each_has_one_winner_and_there_is_always_one_champion(tmp_path: Path) -> None:
    race(f"sqlite:///{tmp_path}/champions.db", 1000)


@pytest.mark.soak
@pytest.mark.skipif(programs() is None, reason="no PostgreSQL is installed (Debian: package postgresql)")
def test_the_same_race_on_postgresql() -> None:
    with running_postgres() as url:
        race(url, 1000)


@pytest.mark.soak  # short: the race above; what is added here is the server, killed three times
@pytest.mark.skipif(programs() is None, reason="no PostgreSQL is installed (Debian: package postgresql)")
def test_promotions_while_postgresql_is_killed_are_lost_by_none_and_made_twice_by_none() -> None:
    told: list[ChampionEntry] = []
    silences = 0
    is_over = threading.Event()

    def promote(who: int) -> None:
        nonlocal silences
        table = ChampionTable(url)
        while not is_over.is_set():
            try:
                newest = table.newest("arm")
                before, number = (newest.version, newest.number) if newest else (None, 0)
                entry = ChampionEntry(model="arm", number=number + 1, version=2 * number + who, replaced=before, how="gate", reason="why")
                if (added := table.add(entry)) is not None:
                    told.append(added)
            except TrackingError:
                silences += 1
                time.sleep(0.1)

    with postgres_server() as server, ThreadPoolExecutor(2) as pool:
        url = server.url
        promoting = [pool.submit(promote, who) for who in range(2)]
        try:
            for _ in range(3):
                more(lambda: len(told), 20)
                server.kill()
                more(lambda: silences, 2)
                server.start()
            more(lambda: len(told), 20)
        finally:
            is_over.set()
        for done in promoting:
            done.result()
        history = ChampionTable(url).history("arm")
    assert [one.number for one in history] == list(range(1, len(history) + 1))
    assert all(after.replaced == before.version for before, after in itertools.pairwise(history))
    kept = {one.number: one for one in history}
    assert all(kept[one.number] == one for one in told), "a promotion that was told and is not there"
    assert len(told) <= len(history) <= len(told) + 6, "only the answer to what was written when the server died may be missing"


def test_a_number_that_is_taken_is_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    table = ChampionTable(f"sqlite:///{tmp_path}/champions.db")
    first = table.add(ChampionEntry(model="arm", number=1, version=3, replaced=None, how="person", reason="why"))
    assert first is not None
    assert first.recorded_at
    assert ChampionTable(f"sqlite:///{tmp_path}/champions.db").add(first) is None
    assert table.history("arm") == [first]
    assert (table.newest("another"), table.models()) == (None, ["arm"])
    assert ChampionTable(f"sqlite:///{tmp_path}/champions.db").table_id == table.table_id


def test_a_database_that_does_not_answer_is_told_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"did not answer: .*Fix: start its database, or correct ACTWRIGHT_CHAMPIONS_URL") as told:
        ChampionTable("postgresql://me:secret@127.0.0.1:9/champions").newest("arm")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("tracking", "expected"),
    [
        ("sqlite:////data/mlflow.db", "sqlite:////data/champions.db"),
        ("postgresql+psycopg2://db/mlflow", "postgresql+psycopg2://db/mlflow"),
        ("http://mlflow:5000", "sqlite:////home/champions.db"),
    ],
)
def test_the_table_is_beside_the_registry_unless_told(tracking: str, expected: str) -> None:
    assert default_url(tracking, Path("/home")) == expected
