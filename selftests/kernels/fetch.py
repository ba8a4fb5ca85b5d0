# SPDX-License-Identifier: Apache-2.0
"""Brings Debian's cloud kernels into a cache: the mirror is the one this machine's apt uses."""
import glob
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request

KERNELS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie", "newest": "sid"}
META = "linux-image-cloud-amd64"


class FetchError(Exception):
    """Says in one line why a kernel could not be had."""


def cache_dir():
    base = os.environ.get("WAGGLE_CACHE") or os.path.expanduser("~/.cache/waggle")
    path = os.path.join(base, "kernels")
    os.makedirs(path, exist_ok=True)
    return path


def mirrors():
    """The archive URLs of apt's own sources that serve a Debian main archive."""
    found = []
    for path in ["/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*")]:
        try:
            text = open(path, encoding="utf-8").read()
        except OSError:
            continue
        if path.endswith(".sources"):
            found += re.findall(r"^URIs:\s*(\S+)", text, re.M)
        else:
            found += re.findall(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s", text, re.M)
    plain = [u.rstrip("/") for u in found if u.rstrip("/").endswith("/debian")]
    return list(dict.fromkeys(plain))


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read()
    except OSError as e:
        raise FetchError(f"the package mirror did not answer: {e}") from e


def packages(base, suite):
    """The suite's package paragraphs of linux-image-*cloud-amd64, checked against its InRelease."""
    release = get(f"{base}/dists/{suite}/InRelease").decode()
    index = "main/binary-amd64/Packages.xz"
    sums = re.search(r"^SHA256:\n((?: .*\n)+)", release, re.M)
    want = sums and re.search(rf"^ (\w{{64}}) +\d+ {re.escape(index)}$", sums[1], re.M)
    if not want:
        raise FetchError(f"{suite}: no {index} in its InRelease")
    raw = get(f"{base}/dists/{suite}/{index}")
    if hashlib.sha256(raw).hexdigest() != want[1]:
        raise FetchError(f"{suite}: {index} does not match its InRelease")
    found = {}
    for para in lzma.decompress(raw).decode().split("\n\n"):
        name = re.match(r"Package: (linux-(?:image|binary|modules)-\S*cloud-amd64)\n", para)
        if name:
            found[name[1]] = dict(re.findall(r"^(\S+): (.*)$", para, re.M))
    return found


def depends(found, name):
    """What a package depends on, among the kernel packages found."""
    names = re.findall(r"linux-[a-z]+-\S+-amd64", found.get(name, {}).get("Depends", ""))
    return [n for n in names if n in found]


def pick(found, suite):
    """The image package the suite's meta package stands for, or else the newest there is."""
    for name in depends(found, META):
        return name
    rest = [n for n in found if re.match(r"linux-image-\d.*-cloud-amd64$", n)]
    if not rest:
        raise FetchError(f"{suite}: the mirror lists no cloud kernel")
    key = lambda n: [int(x) for x in re.findall(r"\d+", n)]
    return max(rest, key=key)


def unpack(base, paras, dest):
    """Unpacks the packages, each checked against its checksum, into one new directory."""
    tmp = tempfile.mkdtemp(dir=os.path.dirname(dest))
    try:
        for para in paras:
            raw = get(f"{base}/{para['Filename']}")
            if hashlib.sha256(raw).hexdigest() != para["SHA256"]:
                raise FetchError(f"{para['Filename']} does not match its checksum")
            with tempfile.NamedTemporaryFile(dir=os.path.dirname(dest), suffix=".deb") as deb:
                deb.write(raw)
                deb.flush()
                subprocess.run(["dpkg", "-x", deb.name, tmp], check=True)
        os.rename(tmp, dest)
    except (OSError, subprocess.CalledProcessError) as e:
        raise FetchError(f"{os.path.basename(dest)} does not unpack: {e}") from e
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def image(dest):
    """The kernel image below an unpacked kernel, or None."""
    found = glob.glob(f"{dest}/boot/vmlinuz-*") + glob.glob(f"{dest}/usr/lib/modules/*/vmlinuz")
    return found[0] if found else None


def kernel(label):
    """Returns the directory one kernel and its modules are unpacked in."""
    suite = KERNELS[label]
    stamp = os.path.join(cache_dir(), f"{suite}.dir")
    if os.path.exists(stamp):
        dest = open(stamp, encoding="utf-8").read().strip()
        if image(dest):
            return dest
    bases = mirrors()
    if not bases:
        raise FetchError("apt's sources name no Debian mirror")
    found = packages(bases[0], suite)
    name = pick(found, suite)
    dest = os.path.join(cache_dir(), f"{name}_{found[name]['Version']}")
    if not os.path.isdir(dest):
        # Debian 14 keeps the kernel and its modules in packages of their own
        unpack(bases[0], [found[n] for n in [name, *depends(found, name)]], dest)
    with open(stamp, "w", encoding="utf-8") as f:
        f.write(dest)
    return dest
