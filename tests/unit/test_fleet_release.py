"""Releases: what one holds, what is refused, and that every changed byte is found, by us and by model-signing's own verifier."""

from __future__ import annotations

import datetime
import json
import shutil
import stat
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import verifying

from components.adapters.signing.folder_signature import Signer, Trust
from components.adapters.signing.key_files import load_private, make_keys, site_role
from components.release.bundle import find_packed
from components.release.fleet.bill_of_materials import bill_of_materials
from components.release.fleet.create import Facts, create_release
from components.release.fleet.verify import check_content, verify_release
from model_core.spec.errors import CheckpointError, SpecError
from model_core.spec.fleet.release import (
    OfflineRule,
    Override,
    check_may_reach_robots,
    offline_rule,
    part_of,
    read_release,
    who_allows,
    written_release,
)
from tests.fleet import LOCK, bundle, release, verdict_on


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys") / "k"
    make_keys(folder, ["lab"])
    return folder


@pytest.fixture(scope="module")
def made(keys, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fleet")
    return release(bundle(folder / "bundle"), folder / "releases", keys)


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made.folder, tmp_path / made.folder.name)


def trust(keys) -> Trust:
    return Trust(public_key=keys / "release.pub.pem")


def verify_as_model_signing(folder, keys) -> None:
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "release.pub.pem")
    config.verify(folder, folder / "release.sig")


def test_a_release_holds_every_part_and_is_named_by_its_digest(made, keys):
    found = verify_release(made.folder, trust(keys))
    assert found == made.release
    assert made.folder.name == found.digest[:16]
    parts = {part_of(path) for path in found.files}
    assert parts == {"weights", "contract", "language", "depth decoder", "golden probes", "evidence", "documents"}
    assert (found.judgement.ledger, found.is_promoted, who_allows(found)) == ("ab" * 32, True, "the gate promotes it")
    bill = json.loads((made.folder / "sbom.cdx.json").read_text())
    assert [one["purl"] for one in bill["components"]] == ["pkg:pypi/msgpack@1.2.0", "pkg:pypi/numpy@2.4.1"]
    assert "Outcome of the gate: **promote**" in (made.folder / "model_card.md").read_text()
    verify_as_model_signing(made.folder, keys)


def test_equal_inputs_give_the_same_release_and_another_weight_another(made, keys, tmp_path):
    again = release(bundle(tmp_path / "b"), made.folder.parent, keys)
    assert (again.folder, again.is_new) == (made.folder, False)
    other = release(bundle(tmp_path / "c", weights=2), tmp_path / "r", keys)
    assert other.release.digest != made.release.digest


@pytest.mark.parametrize("places", [(0.5,), pytest.param((0.0, 0.1, 0.9, 1.0), marks=pytest.mark.soak)])
def test_a_changed_byte_anywhere_is_refused_by_both(copied, keys, places):
    for path in sorted(p for p in copied.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for place in {int(part * (len(content) - 1)) for part in places}:
            changed = bytearray(content)
            changed[place] ^= 1
            path.write_bytes(changed)
            if path.name == "release.sig" and same_statement(content, bytes(changed)):
                continue
            with pytest.raises(CheckpointError):
                verify_release(copied, trust(keys))
            with pytest.raises(Exception):
                verify_as_model_signing(copied, keys)
        path.write_bytes(content)
    verify_release(copied, trust(keys))


def same_statement(one: bytes, other: bytes) -> bool:
    """White space outside of the strings of a signature file says nothing."""
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["extra.txt", ".gitignore", "bundle/.git/config", "bundle/checkpoint/model.pt"])
def test_an_added_file_is_refused(copied, keys, name):
    (copied / name).parent.mkdir(parents=True, exist_ok=True)
    (copied / name).write_text("x")
    with pytest.raises(CheckpointError, match="does not hold"):
        verify_release(copied, trust(keys))
    with pytest.raises(CheckpointError, match="does not list"):
        check_content(copied, read_release(copied))


def test_a_missing_signature_another_key_and_another_name_are_refused(copied, keys, tmp_path):
    make_keys(tmp_path / "other", ["lab"])
    with pytest.raises(CheckpointError, match="does not hold"):
        verify_release(copied, trust(tmp_path / "other"))
    renamed = copied.rename(tmp_path / ("0" * 16))
    with pytest.raises(CheckpointError, match="which its name is not"):
        verify_release(renamed, trust(keys))
    (renamed / "release.sig").unlink()
    with pytest.raises(CheckpointError, match="carries no signature"):
        verify_release(renamed.rename(copied), trust(keys))


def test_a_release_that_is_not_promoted_needs_a_named_person(keys, tmp_path):
    packed = bundle(tmp_path / "b")
    held = release(packed, tmp_path / "r", keys, verdict=verdict_on(packed, promote=False)).release
    unknown = release(packed, tmp_path / "r", keys, verdict=None).release
    for one, says in ((held, "outcome is 'reject'"), (unknown, "no verdict of the gate is known")):
        with pytest.raises(SpecError, match=says):
            check_may_reach_robots(one)
    person = Override(name="A. Person", reason="pilot cell only")
    made = release(packed, tmp_path / "r", keys, verdict=verdict_on(packed, promote=False), override=person)
    check_may_reach_robots(verify_release(made.folder, trust(keys)))
    assert who_allows(made.release) == "OVERRIDE by A. Person: pilot cell only (the gate's outcome is 'reject')"
    assert "**Released by override.** A. Person: pilot cell only" in (made.folder / "model_card.md").read_text()
    with pytest.raises(SpecError, match="no override is needed"):
        release(packed, tmp_path / "r", keys, override=person)
    with pytest.raises(SpecError, match="a person and a reason"):
        Override(name=" ", reason="because")


def test_a_verdict_on_other_weights_is_refused(keys, tmp_path):
    other = verdict_on(bundle(tmp_path / "other", weights=3))
    with pytest.raises(CheckpointError, match="the verdict is on checkpoint"):
        release(bundle(tmp_path / "b"), tmp_path / "r", keys, verdict=other)
    taken = release(bundle(tmp_path / "c"), tmp_path / "r", keys, verdict=other, evaluated=frozenset({other.candidate}))
    assert taken.release.judgement.evaluated == other.candidate


def test_a_document_that_says_other_than_its_verdict_is_refused(copied, made):
    better = replace(made.release, judgement=replace(made.release.judgement, study="another"))
    (copied / "release.json").write_text(written_release(better))
    with pytest.raises(CheckpointError, match=r"other than release\.json"):
        check_content(copied, read_release(copied))


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../b", "a\\b", "release.json", "a//b", "", "./a"])
def test_paths_that_leave_the_release_are_refused(made, path):
    with pytest.raises(SpecError):
        replace(made.release, files={path: next(iter(made.release.files.values()))})


def test_a_bill_lists_only_pins():
    with pytest.raises(SpecError, match="line 2 of the lock"):
        bill_of_materials("arm/1", "numpy==2.4.1\nmsgpack>=1\n", {})


def test_private_keys_are_their_owners_and_never_replaced(keys, tmp_path):
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.glob("*.pem") if ".pub." not in path.name} == {0o600}
    with pytest.raises(SpecError, match="never replaced"):
        make_keys(keys, ["plant"])
    make_keys(tmp_path / "k", ["lab"])
    (tmp_path / "k" / "root.pem").chmod(0o644)
    with pytest.raises(SpecError, match="chmod 600"):
        load_private(tmp_path / "k", "root")
    for wrong in ("", "../x", "a b", "-x"):
        with pytest.raises(SpecError, match="no name of a site"):
            site_role(wrong)


def certificate(folder, name, above=None):
    """Write NAME.pem and NAME.crt: an authority, or with `above` (name, key, certificate) a certificate that may sign code."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    issuer = above[1].subject if above else subject
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=above is None, path_length=None), critical=True)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
    )
    signs = {"digital_signature": above is not None, "key_cert_sign": above is None, "crl_sign": above is None}
    made = made.add_extension(x509.KeyUsage(**usage, **signs), critical=True)
    if above:
        made = made.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.CODE_SIGNING]), critical=False)
    made = made.sign(above[0] if above else key, hashes.SHA256())
    form = serialization
    (folder / f"{name}.pem").write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    (folder / f"{name}.crt").write_bytes(made.public_bytes(form.Encoding.PEM))
    return key, made


def test_a_certificate_signs_and_only_its_own_authority_is_trusted(tmp_path):
    above = certificate(tmp_path, "authority")
    certificate(tmp_path, "signer", above)
    certificate(tmp_path, "stranger")
    signer = Signer(private_key=tmp_path / "signer.pem", certificate=tmp_path / "signer.crt", chain=(tmp_path / "authority.crt",))
    packed = bundle(tmp_path / "b")
    facts = Facts(verdict=verdict_on(packed), lock=LOCK, minimum_agent="0.1.0")
    made = create_release(find_packed(packed), tmp_path / "r", signer, facts)
    verify_release(made.folder, Trust(authorities=(tmp_path / "authority.crt",)))
    with pytest.raises(CheckpointError, match="does not hold"):
        verify_release(made.folder, Trust(authorities=(tmp_path / "stranger.crt",)))
    with pytest.raises(SpecError, match="could not be signed"):
        create_release(find_packed(packed), tmp_path / "q", Signer(private_key=tmp_path / "signer.crt"), facts)


def test_a_rule_for_a_lost_controller_is_signed_and_the_first_rule_leaves_older_digests_as_they_were(keys, tmp_path):
    packed = bundle(tmp_path / "b")
    before = release(packed, tmp_path / "r", keys)
    assert "offline" not in json.loads((before.folder / "release.json").read_text())
    after = release(packed, tmp_path / "r", keys, offline=offline_rule("episodes:50", 60.0))
    assert after.release.digest != before.release.digest
    assert read_release(after.folder).offline == OfflineRule(then="episodes", after_s=60.0, episodes=50)
    assert read_release(before.folder).offline == OfflineRule()


@pytest.mark.parametrize("text", ["", "episodes", "episodes:", "episodes:0", "episodes:-1", "episodes:1.5", "stop:3", "go"])
def test_an_offline_rule_that_is_none_is_refused(text):
    with pytest.raises(SpecError):
        offline_rule(text, 60.0)
