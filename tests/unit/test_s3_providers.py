"""Object stores of other providers: ETags that are no MD5, regions of their own, disks that change bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.adapters.dvc import DvcStore, Remote
from components.adapters.storage.folder_transfer import download_folder, upload_folder
from components.adapters.storage.s3 import S3Address, S3Store
from components.config.records import Silent
from flows.pipeline.storage import storage
from flows.platform.settings import load_settings
from model_core.spec.errors import StorageError
from tests.s3_endpoint import Endpoint, s3_endpoint


def store_at(endpoint: Endpoint, region: str = "") -> S3Store:
    return S3Store(S3Address(endpoint=endpoint.address, access_key="key", secret_key="secret-secret", region=region), "actwright")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "shard"
    made.write_bytes(os.urandom(1000))
    return made


@pytest.mark.parametrize("etag", ["kms-0123456789abcdef", "d41d8cd98f00b204e9800998ecf8427e", "9b2cf535f27731c974343645a3985328-7", ""])
def test_what_arrived_whole_is_taken_whatever_the_store_calls_it(path: Path, tmp_path: Path, etag: str) -> None:
    with s3_endpoint(etag=etag) as endpoint:
        store = store_at(endpoint)
        assert store.put("raw/shard", path)
        assert endpoint.objects["raw/shard"].body == path.read_bytes()
        assert not store.put("raw/shard", path)  # it is there
        store.get("raw/shard", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_an_object_of_several_parts_whose_etag_is_no_md5_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.adapters.storage.s3.PART_BYTES", 5 * 2**20)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(2**20) * 6)
    with s3_endpoint() as endpoint:
        assert store_at(endpoint).put("big", big)
        assert endpoint.objects["big"].body == big.read_bytes()


def test_other_bytes_are_refused_and_do_not_stay_under_the_digest_of_the_right_ones(path: Path) -> None:
    with s3_endpoint(damage=True) as endpoint:
        store = store_at(endpoint)
        for _ in range(2):  # the second time it is sent again, and not taken for whole by its own metadata
            with pytest.raises(
                StorageError, match=r"shard arrived .* with other bytes: expected SHA-256 \w{16} of 1000 bytes, got \w{16} of 1000"
            ):
                store.put("raw/shard", path)
            assert not endpoint.objects
        endpoint.damage = False
        assert store.put("raw/shard", path)


@pytest.mark.parametrize("region", ["", "fr-par"])
def test_the_region_is_that_of_the_settings_or_asked_for(region: str, path: Path) -> None:
    with s3_endpoint(region="fr-par") as endpoint:
        assert store_at(endpoint, region).put("k", path)
        assert ("GET location" in endpoint.asked) == (not region)


def test_a_wrong_region_is_refused_with_the_variable_to_set(path: Path) -> None:
    with s3_endpoint(region="fr-par") as endpoint:
        store = store_at(endpoint, "us-east-1")
        for ask in (lambda: store.get("k", path), lambda: store.list("")):  # one asks by HEAD, whose answer has no words
            with pytest.raises(StorageError, match=r"refused to .*Fix: set ACTWRIGHT_S3_REGION to the region of the bucket, fr-par$"):
                ask()


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({}, ""),
        ({"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-1"),
        ({"ACTWRIGHT_S3_REGION": "fr-par", "AWS_REGION": "eu-west-1"}, "fr-par"),
    ],
)
def test_a_folder_goes_to_an_endpoint_of_the_environment_and_back(
    environment: dict[str, str], region: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACTWRIGHT_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with s3_endpoint(region=region or "ap-south-1") as endpoint:
        told = {"STORAGE": f"s3://{endpoint.address}", "S3_ACCESS_KEY": "key", "S3_SECRET_KEY": "secret-secret"}
        for name, value in {**{f"ACTWRIGHT_{name}": value for name, value in told.items()}, **environment}.items():
            monkeypatch.setenv(name, value)
        with storage(load_settings()) as (store, remote):
            assert upload_folder(store, path.parent, "raw/a", Silent()).moved == 1
            assert download_folder(store, "raw/a", tmp_path / "back", Silent()).moved == 1
        assert remote.region == region


def test_dvc_is_told_the_region_too(tmp_path: Path) -> None:
    DvcStore(tmp_path).prepare(Remote(url="s3://actwright/dvc", endpoint_url="http://127.0.0.1:1", region="fr-par"))
    assert "    region = fr-par\n" in (tmp_path / ".dvc" / "config.local").read_text()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_store_that_is_busy_for_a_moment_is_asked_again(path: Path, tmp_path: Path, status: int) -> None:
    with s3_endpoint(refusal=(status, "SlowDown"), refusals=2) as endpoint:
        store = store_at(endpoint)
        assert store.put("raw/shard", path)
        endpoint.refusals = 2
        store.get("raw/shard", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_store_that_stays_busy_is_named_and_nothing_counts_as_sent(path: Path, tmp_path: Path) -> None:
    with s3_endpoint(refusals=1000) as endpoint:
        store = store_at(endpoint)
        with pytest.raises(StorageError, match=r"127\.0\.0\.1.*raw/shard.*Fix: "):
            store.put("raw/shard", path)
        assert not endpoint.objects
        endpoint.refusals = 0
        assert store.put("raw/shard", path)
        endpoint.refusals = 1000
        with pytest.raises(StorageError, match=r"raw/shard.*Fix: "):
            store.get("raw/shard", tmp_path / "back")
        assert not list(tmp_path.glob("back*"))


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
def test_keys_that_no_longer_hold_end_the_upload_with_what_to_do_and_the_rest_goes_later(tmp_path: Path, code: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / name).write_bytes(os.urandom(100))
    with s3_endpoint(refusal=(403, code)) as endpoint:
        store = store_at(endpoint)
        upload_folder(store, folder, "raw/set", Silent())
        whole = dict(endpoint.objects)
        for key in list(endpoint.objects)[1:]:
            del endpoint.objects[key]
        endpoint.refusals = 1000
        with pytest.raises(StorageError) as refused:
            upload_folder(store, folder, "raw/set", Silent())
        assert "Fix: " in str(refused.value)
        assert "key" in str(refused.value).lower()
        endpoint.refusals = 0
        upload_folder(store, folder, "raw/set", Silent())
        assert endpoint.objects.keys() == whole.keys()


def test_keys_that_end_amid_an_upload_of_parts_leave_nothing_to_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.adapters.storage.s3.PART_BYTES", 5 * 2**20)
    big = tmp_path / "big"
    big.write_bytes(os.urandom(2**20) * 12)
    with s3_endpoint(refusal=(403, "ExpiredToken"), refusals=1000, answers_first=3) as endpoint:
        store = store_at(endpoint)
        with pytest.raises(StorageError, match=r"raw/big.*Fix: "):
            store.put("raw/big", big)
        assert endpoint.begun  # the upload of parts had begun
        assert not endpoint.objects
        endpoint.refusals = 0
        assert store.put("raw/big", big)
        store.get("raw/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
