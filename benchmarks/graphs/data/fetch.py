r"""Files of OGB: found, or fetched without questions, or told how to get."""

import os
import os.path as osp
import zipfile
from dataclasses import dataclass
from tempfile import TemporaryDirectory

from torch_geometric_erwin.datasets.ogb_guard import quiet_import

with quiet_import():
    from ogb.utils.url import download_url, extract_zip


@dataclass(frozen=True)
class Archive:
    r"""A dataset of OGB as it is published.

    Args:
        url (str): Where it is.
        root (str): Where archives that are there already are looked for.
        inner (str): The folder that it consists of.
        folder (str): What the folder is called after unpacking.
        files (tuple[str]): Files of the folder that make it complete.
    """
    url: str
    root: str
    inner: str
    folder: str
    files: tuple[str, ...]

    @property
    def lacks(self) -> list[str]:
        return [name for name in self.files
                if not osp.isfile(osp.join(self.folder, name))]


def provide(archive: Archive, download: bool = True) -> None:
    r"""Unpacks an archive unless that was done before.

    Raises:
        FileNotFoundError: If there is no archive and none can be fetched.
        RuntimeError: If the archive, or what was unpacked, is not complete.
    """
    remove_empty(archive.folder)  # what a failed download of OGB's leaves
    if osp.exists(archive.folder):
        check_complete(archive)
        return
    os.makedirs(archive.root, exist_ok=True)
    with TemporaryDirectory(dir=archive.root, prefix='unpack-') as part:
        path = find(archive.url, archive.root, part, download)
        try:
            extract_zip(path, part)
        except zipfile.BadZipFile as error:
            raise RuntimeError(f"Expected '{path}' to be a whole zip archive "
                               f"(got {error})") from error
        inner = osp.join(part, archive.inner)
        if not osp.isdir(inner):
            raise RuntimeError(f"Expected '{path}' to hold the folder "
                               f"'{archive.inner}' (got others)")
        os.replace(inner, archive.folder)
    check_complete(archive)


def find(url: str, root: str, target: str, download: bool = True) -> str:
    r"""Returns the path of a file that has been put into :obj:`root`, or that
    is fetched into :obj:`target`.

    Raises:
        FileNotFoundError: If there is none and none can be fetched.
    """
    name = url.rpartition('/')[2]
    path = osp.join(root, name)
    if osp.isfile(path):
        return path
    reason: BaseException | str = 'downloads are switched off'
    if download:
        try:
            return download_url(url, target)
        except (OSError, RuntimeError) as error:
            reason = error
    raise FileNotFoundError(
        f"Expected the file '{name}' in the folder '{root}' (got none, and "
        f"could not fetch it: {reason}). Fetch {url} by other means and put "
        f"it, as it is, into '{root}': it is used from there.")


def keep(url: str, root: str, download: bool = True) -> str:
    r"""Does as :func:`find`, but keeps what it fetches in :obj:`root`."""
    target = osp.join(root, url.rpartition('/')[2])
    with TemporaryDirectory(dir=root, prefix='fetch-') as part:
        path = find(url, root, part, download)
        if path != target:
            os.replace(path, target)
    return target


def check_complete(archive: Archive) -> None:
    if archive.lacks:
        # OGB would ask on standard input whether to remove everything.
        raise RuntimeError(
            f"Expected the folder '{archive.folder}' to hold "
            f"{', '.join(archive.files)} (got no "
            f"{', '.join(archive.lacks)}). Remove it to have it made anew "
            f"from {archive.url}")


def remove_empty(folder: str) -> None:
    r"""Removes a folder that holds no files, only folders."""
    if any(files for _, _, files in os.walk(folder)):
        return
    for path, _, _ in os.walk(folder, topdown=False):
        os.rmdir(path)
