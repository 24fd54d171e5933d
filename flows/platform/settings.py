"""Addresses, credentials and ports, read from the environment once; the only file that reads it.

Every variable begins with ``ACTWRIGHT_``, but for the region of an S3 endpoint, which may be told in AWS's own; nothing has to be set.
What a recipe makes never depends on them.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model_core.spec.errors import SpecError

# Tools that send usage data, print banners or check for new versions: all of that is switched off, in this process and in every child.
QUIET: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "DVC_NO_ANALYTICS": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GIT_PYTHON_REFRESH": "quiet",
    "MUJOCO_GL": "osmesa",
    "DS_ACCELERATOR": "cpu",
    "SVT_LOG": "1",  # the AV1 encoder tells its settings on stderr otherwise
}


class Settings(BaseSettings):
    """Where things are on this machine. Relative paths are taken from the working directory."""

    model_config = SettingsConfigDict(env_prefix="ACTWRIGHT_", extra="ignore", frozen=True, populate_by_name=True)

    home: Path = Field(Path(".actwright"), description="finished steps, databases and files of the embedded services")
    runs: Path = Field(Path("runs"), description="a folder for each run; runs/latest points at the newest")
    data: Path = Field(Path("data"), description="what DVC tracks, one folder a data stage")
    storage: str = Field("embedded", description="'embedded' (SeaweedFS on loopback), 'folder:/path' or 's3://host:port'")
    s3_access_key: str = Field("", description="for an S3 endpoint of your own")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="for an S3 endpoint of your own")
    s3_region: str = Field(
        "",
        description="region of its buckets (else AWS_REGION or AWS_DEFAULT_REGION); empty: the endpoint is asked",
        validation_alias=AliasChoices("ACTWRIGHT_S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"),
    )
    bucket: str = Field("actwright", description="bucket of raw recordings and of the DVC remote")
    mlflow_uri: str = Field("", description="tracking server; empty: a SQLite file under home")
    mlflow_token: SecretStr = Field(
        SecretStr(""),
        description="bearer token for that server",
        validation_alias=AliasChoices("ACTWRIGHT_MLFLOW_TOKEN", "MLFLOW_TRACKING_TOKEN"),
    )
    mlflow_username: str = Field(
        "",
        description="for that server, with a password",
        validation_alias=AliasChoices("ACTWRIGHT_MLFLOW_USERNAME", "MLFLOW_TRACKING_USERNAME"),
    )
    mlflow_password: SecretStr = Field(
        SecretStr(""),
        description="for that server",
        validation_alias=AliasChoices("ACTWRIGHT_MLFLOW_PASSWORD", "MLFLOW_TRACKING_PASSWORD"),
    )
    champions_url: SecretStr = Field(
        SecretStr(""),
        description="database of the table of champions, postgresql://... where several machines promote; empty: beside MLflow's own file",
    )
    prefect_api_url: str = Field("", description="Prefect server; empty: one is started for the time of a run")
    prefect_port: int = Field(4200, description="of the Prefect page that `actwright up` opens; 0: any free one")
    mlflow_port: int = Field(5000, description="of the MLflow page that `actwright up` opens; 0: any free one")
    policy_port: int = Field(3000, description="of the policy service that `actwright up` opens; 0: any free one")
    console_port: int = Field(3100, description="of the console that `actwright up` opens; 0: any free one")
    fleet_url: str = Field(
        "", description="the fleet's controller that the console asks; empty: http://127.0.0.1:4000 where people need no tokens"
    )
    fleet_ca_file: str = Field("", description="who may sign that controller's certificate, PEM; empty: the system's authorities")
    token: SecretStr = Field(SecretStr(""), description="bearer token that commands show to a policy service or to the fleet's controller")
    tokens: SecretStr = Field(
        SecretStr(""), description="who may ask a policy service that we start: JSON, {sha256 of a token: {subject, role}}"
    )
    tokens_file: str = Field("", description="the same, as a file")
    fault: str = Field("", description="tests only: '<stage>:<phase>' at which this process kills its group")

    @field_validator("storage")
    @classmethod
    def _known_storage(cls, value: str) -> str:
        if value == "embedded" or value.startswith(("folder:", "s3://", "http://", "https://")):
            return value
        raise ValueError(f"{value!r} is not a storage; use 'embedded', 'folder:/path' or 's3://host:port'")

    @property
    def mlflow_authorization(self) -> str:
        """The header that MLflow's server is shown, as its own client would: the token, else name and password; "" without either."""
        if token := self.mlflow_token.get_secret_value():
            return f"Bearer {token}"
        if not self.mlflow_username:
            return ""
        return "Basic " + b64encode(f"{self.mlflow_username}:{self.mlflow_password.get_secret_value()}".encode()).decode()

    @property
    def store_root(self) -> Path:
        """Where finished steps are."""
        return self.home.resolve() / "store"

    @property
    def prefect_home(self) -> Path:
        """Prefect's database and profile."""
        return self.home.resolve() / "prefect"


def load_settings() -> Settings:
    """Read the environment; raises `SpecError` naming the variable that is wrong."""
    try:
        return Settings()  # pyright: ignore[reportCallIssue]
    except ValidationError as error:
        wrong = "; ".join(f"ACTWRIGHT_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise SpecError(f"settings from the environment: {wrong}") from error


def environment_of(settings: Settings) -> dict[str, str]:
    """What this process and every child must find in its environment: quiet tools, and Prefect at home under `home`."""
    return {
        **QUIET,
        # threads of torch sleep while they wait for each other: where cores are shared, those that spin keep the awaited one off its core
        "OMP_WAIT_POLICY": "passive",
        "ACTWRIGHT_HOME": str(settings.home.resolve()),
        "ACTWRIGHT_RUNS": str(settings.runs.resolve()),
        "ACTWRIGHT_DATA": str(settings.data.resolve()),
        "PREFECT_HOME": str(settings.prefect_home),
        "PREFECT_PROFILES_PATH": str(settings.prefect_home / "profiles.toml"),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # errors are printed once, by the command
        "PREFECT_LOGGING_TO_API_ENABLED": "true",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    }


def prepare_process(settings: Settings) -> None:
    """Put `environment_of` into this process. Call before prefect, mlflow or a simulator is imported."""
    settings.prefect_home.mkdir(parents=True, exist_ok=True)
    for name, value in environment_of(settings).items():
        if name not in os.environ or name.startswith(("PREFECT_HOME", "PREFECT_PROFILES", "ACTWRIGHT_")):
            os.environ[name] = value


def point_prefect_at(api_url: str) -> None:
    """Let prefect, imported later in this process or a child, talk to the server at `api_url`."""
    os.environ["PREFECT_API_URL"] = api_url
