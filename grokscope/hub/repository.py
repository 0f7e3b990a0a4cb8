"""The Hugging Face Hub: push a run with its measures, page and model card, and pull it again.

Files that the Hub already has are not sent again, so an interrupted push or pull continues where it stopped. All
checksums are compared afterwards. HF_ENDPOINT names another server, and HF_TOKEN or `hf auth login` the account.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grokscope import report
from grokscope.disk import atomic
from grokscope.errors import BusyError, GrokscopeError
from grokscope.hub import model_card
from grokscope.store import verify
from grokscope.store.run_names import checked_name
from grokscope.store.run_store import RunStore
from grokscope.trajectory import Trajectory

SUMS = "SHA256SUMS"
"""The file with the checksum of every other file, in the format of sha256sum."""
FILES_PER_COMMIT = 20
"""An interrupted push repeats at most these files."""
_PATTERNS = [
    *("config.json", "segments/*.safetensors", "measures/*.safetensors", "report.html", "*.png", "README.md", SUMS),
]


def push(
    run: Path,
    repo: str,
    *,
    licence: str = "mit",
    private: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Upload a run to a model repository, and return its address.

    The repository gets the run's config, segments and measures, its page, a picture, a model card, and checksums.
    Missing measures of the page are computed first.

    Args:
        run: The run's folder.
        repo: The repository, "org/name"; it is made if it does not exist.
        licence: The licence in the model card, by its name on the Hub.
        private: Whether a new repository is private.
        say: Called with each line of progress.

    Raises:
        GrokscopeError: The run is damaged, the server refuses or cannot be reached, or a checksum differs afterwards.
    """
    trajectory = Trajectory.open(run)
    if faults := [fault.sentence for fault in verify.faults(RunStore(run)) if not fault.is_mended]:
        raise GrokscopeError(f"{run} is damaged and was not pushed: {faults[0]} See `grokscope verify {run}`.")
    report.write(trajectory, observer=lambda name: say(f"measuring {name}"))
    contents: dict[str, Path | bytes] = {
        path.relative_to(run).as_posix(): path
        for pattern in ("config.json", "segments/*.safetensors", "measures/*.safetensors", "report.html")
        for path in sorted(run.glob(pattern))
    }
    contents |= {model_card.PICTURE: model_card.picture(trajectory)}
    contents |= {"README.md": model_card.text(trajectory, repo, licence).encode()}
    sums = {name: _sha256(content) for name, content in contents.items()}
    contents[SUMS] = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
    with _errors(repo) as hub:
        api = hub.HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        present = _remote_sums(api, repo)
        missing = [name for name, content in contents.items() if not _matches(content, present.get(name, {}))]
        say(f"{repo}: {len(contents) - len(missing):,} of {len(contents):,} files are there already.")
        for start in range(0, len(missing), FILES_PER_COMMIT):
            names = missing[start : start + FILES_PER_COMMIT]
            additions = [
                hub.CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
                for name in names
                for content in [contents[name]]
            ]
            api.create_commit(repo, additions, commit_message=f"Add {len(names)} files of the run {run.name}")
            say(f"{repo}: {start + len(names):,} of {len(missing):,} files sent.")
        present = _remote_sums(api, repo)
        wrong = [name for name, content in contents.items() if not _matches(content, present.get(name, {}))]
        if wrong:
            raise GrokscopeError(f"{repo}: the checksum of {wrong[0]} differs after the upload. Push again.")
        return f"{api.endpoint}/{repo}"


def pull(repo: str, root: Path | str = "checkpoints", run: str | None = None) -> Trajectory:
    """Download a run that `push` uploaded, verify it, and return its trajectory.

    The run appears under its name once it is complete and verified. The part of an interrupted pull is kept in a
    hidden folder of the root, and the next pull continues it.

    Args:
        repo: The repository, "org/name".
        root: The folder for runs.
        run: The run's name; by default the repository's.

    Raises:
        BusyError: A run of this name exists.
        GrokscopeError: The server cannot be reached, the repository is not a run, or a checksum differs.
    """
    name = checked_name(repo.rpartition("/")[2] if run is None else run)
    folder, partial = Path(root) / name, Path(root) / f".{name}.pulling"
    if atomic.path_exists(folder):
        raise BusyError(f"{folder} exists already; choose another name by --run, or remove it.")
    atomic.make_folder(partial)
    with _errors(repo) as hub:
        hub.snapshot_download(repo, local_dir=partial, allow_patterns=_PATTERNS)
    try:
        lines = [line.partition("  ") for line in (partial / SUMS).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise GrokscopeError(f"{repo} is not a run of grokscope: it has no {SUMS}.") from error
    for digest, _, path in lines:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise GrokscopeError(f"{repo}: {SUMS} names a file outside the run: {path!r}.")
        if not (partial / path).is_file() or _sha256(partial / path) != digest:
            # Without the file, the next pull loads it again.
            atomic.remove_file(partial / path)
            raise GrokscopeError(f"{repo}: the checksum of {path} differs. Pull again; if it repeats, push again.")
    store = RunStore(partial)
    if faults := [fault.sentence for fault in verify.faults(store) if not fault.is_mended]:
        raise GrokscopeError(f"{repo}: the run is damaged: {faults[0]}")
    atomic.remove_folder(partial / ".cache")
    atomic.reveal(partial, folder)
    return Trajectory.open(folder)


@contextmanager
def _errors(repo: str) -> Iterator[Any]:
    """Yield the package huggingface_hub, and turn its errors into a GrokscopeError."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # The base class is that of the HTTP client, which differs between versions of huggingface_hub.
    network_error: type[Exception] = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")

    try:
        yield huggingface_hub
    except HFValidationError as error:
        raise GrokscopeError(f"{repo!r} is not a repository; allowed: a name such as org/name.") from error
    except GrokscopeError:
        raise
    except (HfHubHTTPError, LocalEntryNotFoundError, network_error, OSError, RuntimeError) as error:
        raise GrokscopeError(
            f"{repo}: {(str(error).strip() or type(error).__name__).splitlines()[0]} Repeat the command to continue; "
            "`hf auth login` logs you in."
        ) from error


def _remote_sums(api: Any, repo: str) -> dict[str, dict[str, str]]:
    """Return the checksums that the server has of each file: "sha256" of a large file, or git's "sha1" of another."""
    sums = {}
    for entry in api.list_repo_tree(repo, recursive=True):
        if hasattr(entry, "blob_id"):
            sums[entry.path] = {"sha256": entry.lfs.sha256} if entry.lfs else {"sha1": entry.blob_id}
    return sums


def _matches(content: Path | bytes, present: Mapping[str, str]) -> bool:
    """Return whether the server's checksum is that of a content."""
    if "sha256" in present:
        return present["sha256"] == _sha256(content)
    data = content if isinstance(content, bytes) else content.read_bytes()
    # The checksum of a git blob, which is not secret: it need not withstand attacks.
    return present.get("sha1") == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _sha256(content: Path | bytes) -> str:
    """Return the checksum of a content."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
