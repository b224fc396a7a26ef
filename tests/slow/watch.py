# SPDX-License-Identifier: Apache-2.0
"""What the three processes of a daemon hold, as the kernel counts it."""

import os


def of_process(pid):
    """Resident bytes and open descriptors."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd"))


def of_daemon(daemon):
    """Role -> (resident bytes, descriptors)."""
    roles = daemon.one("status")["roles"]
    pids = {role["name"]: role["pid"] for role in roles if role["pid"]}
    return {name: of_process(pid) for name, pid in pids.items()}


def disk(folder):
    """Bytes of a tree; files may go while it is walked."""
    n_bytes = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                n_bytes += os.lstat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                pass
    return n_bytes
