"""The lists that Blob Storage answers with, as XML."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from email.utils import formatdate
from itertools import islice
from xml.sax.saxutils import escape, quoteattr

from azml_dist.emulator.account import Account
from azml_dist.emulator.blobstore import BLOCK, Blob, BlobStore

_MOST = 5000


def http_date(seconds: float) -> str:
    """A time as HTTP writes it."""
    return formatdate(seconds, usegmt=True)


def listed_containers(account: Account, store: BlobStore, query: Mapping[str, str]) -> str:
    """The containers of an account."""
    names = sorted(name for name in store.containers if name.startswith(query.get("prefix", "")))
    items = "".join(
        f"<Container><Name>{escape(name)}</Name><Properties><Last-Modified>{http_date(store.containers[name].modified)}"
        f"</Last-Modified><Etag>{escape(store.containers[name].etag)}</Etag></Properties></Container>"
        for name in names
    )
    return _results(account, "", f"<Containers>{items}</Containers><NextMarker/>")


def listed_blobs(account: Account, store: BlobStore, container: str, query: Mapping[str, str]) -> str:
    """A page of the blobs of a container, or of those in one of its folders where there is a delimiter."""
    prefix, delimiter, marker = (query.get(name, "") for name in ("prefix", "delimiter", "marker"))
    most = min(int(query.get("maxresults") or _MOST), _MOST)
    entries = _entries(store.names(container, prefix), prefix, delimiter)
    page = list(islice((entry for entry in entries if entry[0] >= marker), most + 1))
    after = page[most][0] if len(page) > most else ""
    blobs, include = store.containers[container].blobs, query.get("include", "")
    items = "".join(
        f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>"
        if is_folder
        else _blob(name, blobs[name], with_metadata="metadata" in include)
        for name, is_folder in page[:most]
    )
    echoed = "".join(
        f"<{tag}>{escape(value)}</{tag}>"
        for tag, value in (("Prefix", prefix), ("Marker", marker), ("Delimiter", delimiter))
        if value
    )
    told = f"{echoed}<MaxResults>{most}</MaxResults><Blobs>{items}</Blobs><NextMarker>{escape(after)}</NextMarker>"
    return _results(account, f" ContainerName={quoteattr(container)}", told)


def _entries(names: Iterable[str], prefix: str, delimiter: str) -> Iterator[tuple[str, bool]]:
    """Each name, or the folder that it is in, once, and whether it is a folder."""
    last = None
    for name in names:
        inner, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if not found:
            yield name, False
        elif (folder := f"{prefix}{inner}{delimiter}") != last:
            last = folder
            yield folder, True


def _blob(name: str, blob: Blob, *, with_metadata: bool) -> str:
    headers = {"Content-Type": "application/octet-stream", **blob.headers}
    kept = "".join(f"<{header}>{escape(value)}</{header}>" for header, value in headers.items())
    tier = "<AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred>" if blob.kind == BLOCK else ""
    metadata = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in blob.metadata.items())
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>{http_date(blob.created)}</Creation-Time>"
        f"<Last-Modified>{http_date(blob.modified)}</Last-Modified><Etag>{escape(blob.etag.strip(chr(34)))}</Etag>"
        f"<Content-Length>{blob.size}</Content-Length>{kept}<BlobType>{blob.kind}</BlobType>{tier}"
        "<LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted>"
        f"</Properties>{f'<Metadata>{metadata}</Metadata>' if with_metadata else ''}</Blob>"
    )


def listed_blocks(committed: Iterable[tuple[str, int]], staged: Mapping[str, int], kinds: str) -> str:
    """The blocks of a blob: those it consists of, and those that wait."""
    told = ""
    for tag, blocks in (("CommittedBlocks", committed), ("UncommittedBlocks", staged.items())):
        if kinds in ("all", tag.removesuffix("Blocks").lower()):
            items = "".join(f"<Block><Name>{escape(n)}</Name><Size>{size}</Size></Block>" for n, size in blocks)
            told += f"<{tag}>{items}</{tag}>"
    return f"<BlockList>{told}</BlockList>"


def _results(account: Account, attributes: str, inner: str) -> str:
    endpoint = quoteattr(f"https://{account.host}/")
    return f"<EnumerationResults ServiceEndpoint={endpoint}{attributes}>{inner}</EnumerationResults>"
