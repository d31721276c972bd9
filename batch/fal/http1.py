"""HTTP/1.1 as bytes: a request written out, an answer read. No I/O.

llhttp (through httptools) reads; what is here is what it leaves to its user: whose headers, which answer of several,
where a body ends that ends with its connection (RFC 9112, 6.3), and that nothing which came before an error is lost.
"""

from __future__ import annotations

import re
from collections import deque

import httptools
import httpx

__all__ = ["HEAD_BYTES_MAX", "AnswerReader", "request_bytes"]

HEAD_BYTES_MAX = 64 * 1024
"""An answer whose head has not ended after so much is none; nor one with more of what is no body behind its head."""

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(rb"[!-~]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")


def request_bytes(request: httpx.Request, content: bytes) -> bytes:
    """The whole request. httpx.LocalProtocolError where it would not be the one request that was meant."""
    method, target = request.method.encode("ascii"), request.url.raw_path
    if not (_TOKEN.fullmatch(method) and _TARGET.fullmatch(target)):
        raise httpx.LocalProtocolError("the method or the address has characters that no request has")
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    lengths: list[bytes] = []
    hosts = 0
    for name, value in request.headers.raw:
        if not (_TOKEN.fullmatch(name) and _VALUE.fullmatch(value)):
            raise httpx.LocalProtocolError("a header has characters that no header has")
        lines.append(b"%b: %b" % (name, value))
        lower = name.lower()
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"host":
            hosts += 1
        elif lower == b"transfer-encoding":
            raise httpx.LocalProtocolError("a request's body goes with its length, not in chunks")
    if lengths != ([b"%d" % len(content)] if content or lengths else []):
        raise httpx.LocalProtocolError("a request has another length than it says")
    if hosts != 1:
        raise httpx.LocalProtocolError("a request names its host once")
    return b"\r\n".join((*lines, b"", content))


class AnswerReader:
    """Reads the answer to one GET, POST or PUT: bytes go in by `feed` and `feed_end`, in any pieces; its head and body
    come out. (Not to a HEAD: its answer tells the length of a body that does not come.)

    An error waits until the pieces before it were taken: they count.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        # What a user agent must or may take (RFC 9112: 2.2, 5.2, 6.3, 7.1). An answer that is read settles a payment,
        # one that is not leaves it in doubt; and no request of others' shares the connection.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_chunked_length=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self.begin()

    def begin(self) -> None:
        """Forget the last answer. Only where it `may_be_followed`."""
        self.has_begun = False
        """Whether any byte came."""
        self.has_head = False
        self.is_complete = False
        self.may_be_followed = False
        """Whether the connection may carry another request, once this answer is complete."""
        self.status_code = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: deque[bytes] = deque()
        """What came of the body and was not taken yet."""
        self.error: httpx.RemoteProtocolError | None = None
        self._other_bytes = 0  # since the head began, or since the last of the body
        self._has_two_lengths = False

    def feed(self, data: bytes) -> None:
        self.has_begun = True
        if self.error is not None:
            return
        if self.is_complete:
            self.may_be_followed = False
            return
        self._other_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fails("the server changes to another protocol")
        except httptools.HttpParserError as exc:
            self._fails(str(exc) or "not HTTP")
        if self._other_bytes > HEAD_BYTES_MAX and not self.is_complete:
            self._fails(f"the answer has more than {HEAD_BYTES_MAX} bytes that are no body")

    def feed_end(self) -> None:
        """The server sends no more."""
        if self.is_complete or self.error is not None:
            self.may_be_followed = False
        elif self.has_head and not any(name.lower() in _FRAMING for name, _ in self.headers):
            self.is_complete = True  # it ends with its connection
        else:
            self._fails("the server closed the connection without a whole answer")

    def _fails(self, words: str) -> None:
        if self.is_complete:
            self.may_be_followed = False  # what is wrong comes after the answer
        elif self.error is None:
            self.error = httpx.RemoteProtocolError(words)

    # --- what the parser calls, in the order of the bytes; it must not raise ---

    def on_message_begin(self) -> None:
        if self.is_complete:
            self.may_be_followed = False  # one more answer, which nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:  # else it stands behind the body, or belongs to another answer
            self.headers.append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.is_complete or self.has_head:
            return
        self.status_code = self._parser.get_status_code()
        if 100 <= self.status_code < 200:
            return  # a word before the answer; 101 is told as an error by the parser
        self.has_head = True
        self._other_bytes = 0
        codings = [value for name, value in self.headers if name.lower() == b"transfer-encoding"]
        if any(coding.lower() != b"chunked" for coding in codings):
            self._fails("the body is in another transfer coding than chunked")
        # The chunks count, and the connection is not to be trusted (RFC 9112, 6.3).
        self._has_two_lengths = bool(codings) and any(name.lower() == b"content-length" for name, _ in self.headers)

    def on_body(self, data: bytes) -> None:
        self._other_bytes = 0
        if self.has_head and not self.is_complete:
            self.pieces.append(data)

    def on_message_complete(self) -> None:
        if not self.has_head:
            self.headers.clear()
        elif not self.is_complete:
            self.is_complete = True
            is_sound = self.error is None and not self._has_two_lengths
            self.may_be_followed = is_sound and self._parser.should_keep_alive()


_FRAMING = (b"content-length", b"transfer-encoding")
