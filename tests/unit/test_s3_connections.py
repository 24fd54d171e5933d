"""Sending to an S3 server that reads nothing for a while, by the connections that its client is given."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import urllib3

from components.adapters.storage.s3 import connection_pools

BODY = b"x" * 8_000_000  # more than the buffers of both sides hold


@pytest.fixture
def late_reader():
    """Accepts one connection, reads nothing for longer than a connection may take to be made, then all of it, and answers."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve() -> None:
            peer, _ = listening.accept()
            with peer:
                time.sleep(0.5)
                request = peer.makefile("rb")
                while request.readline().strip():
                    pass  # its headers
                request.read(len(BODY))
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/bucket/key"
        thread.join(10)


def test_a_server_that_reads_nothing_for_a_while_is_waited_for(late_reader: str) -> None:
    pools = connection_pools(urllib3.Retry(total=0), connect_s=0.1)
    assert pools.request("PUT", late_reader, body=BODY).status == 200


def test_without_that_urllib3_gives_up_in_the_time_for_a_connection(late_reader: str) -> None:
    """The surprise that it is for."""
    plain = urllib3.PoolManager(timeout=urllib3.Timeout(connect=0.1, read=60), retries=urllib3.Retry(total=0))
    with pytest.raises(urllib3.exceptions.MaxRetryError, match="timed out"):
        plain.request("PUT", late_reader, body=BODY)
