"""How an object store is reached: keys, region and endpoint from where they always are, never from a recipe."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

TIMEOUT = float(os.environ.get("GRISTMILL_STORE_TIMEOUT", "120"))
"""Seconds after which a request is given up and tried again."""


def client(root: str) -> Any:
    """The library's handle of a root."""
    from obstore.store import from_url

    config, options = _settings(root)
    return from_url(root, **config, client_options=options, retry_config={"max_retries": 0})


def _settings(root: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """How to reach a store: keys and endpoint, and options of the HTTP client. Retries are `patiently`'s."""
    config: dict[str, Any] = dict(_profile()) if root.startswith("s3") else {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or config.get("endpoint", "")
    if endpoint and root.startswith("s3"):
        config["endpoint"] = endpoint
    options: dict[str, Any] = {"timeout": timedelta(seconds=TIMEOUT), "connect_timeout": timedelta(seconds=10)}
    return config, options | {"allow_http": endpoint.startswith("http://")}


def _profile() -> Iterator[tuple[str, str]]:
    """Keys, region and endpoint of the shared files, where the environment names no key of its own."""
    if "AWS_ACCESS_KEY_ID" in os.environ or "AWS_WEB_IDENTITY_TOKEN_FILE" in os.environ:
        return
    profile = os.environ.get("AWS_PROFILE", "default")
    places = [("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
              ("AWS_CONFIG_FILE", "config", profile if profile == "default" else f"profile {profile}")]  # fmt: skip
    names = {"aws_access_key_id": "access_key_id", "aws_secret_access_key": "secret_access_key",
             "aws_session_token": "session_token", "region": "region", "endpoint_url": "endpoint"}  # fmt: skip
    for variable, name, section in places:
        parser = configparser.ConfigParser()
        parser.read(os.environ.get(variable, Path.home() / ".aws" / name))
        if parser.has_section(section):
            yield from ((ours, parser[section][theirs]) for theirs, ours in names.items() if theirs in parser[section])


def filesystem(url: str) -> Any:
    """The fsspec file system of an object store, for readers that want one."""
    from obstore.fsspec import FsspecStore

    config, options = _settings(url)
    return FsspecStore(url.partition("://")[0], config=config, client_options=options)
