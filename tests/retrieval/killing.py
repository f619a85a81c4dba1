"""Kill a job at each of its steps in turn: `python -m tests.retrieval.killing JOB SOURCE SCRATCH`.

A step is what Python does to the file system, or a transaction. The n-th copy of SOURCE in SCRATCH is
left as the kill at step n left it; the number of kills is printed.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from triptych.index.sqlite.store import Store
from triptych.retrieval.folder import open_store
from triptych.retrieval.maintenance.portable import export_collection, import_collection
from triptych.retrieval.maintenance.repair import repair
from triptych.retrieval.maintenance.verify import verify

STEPS = {
    "open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.truncate",
    "shutil.rmtree", "shutil.copyfile",
}  # fmt: skip


def do(job: str, folder: Path) -> None:
    """The folder holds `collection` or `archive`."""
    if job == "repair":
        repair(verify(folder / "collection"))
    elif job == "export":
        store = open_store(folder / "collection")
        export_collection(store, folder / "exported", replace=True)
        store.close()
    else:
        import_collection(folder / "archive", folder / "imported")


def die_at(step: int, folder: Path) -> None:
    left = step

    def tick() -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STEPS and str(folder) in str(arguments[0]):
            tick()

    write = Store.write

    def counted(*args: Any, **options: Any) -> Any:
        done = write(*args, **options)
        tick()
        return done

    Store.write = counted  # type: ignore[method-assign]
    sys.addaudithook(hook)


def main(job: str, source: Path, scratch: Path) -> int:
    step = 0
    while True:
        step += 1
        folder = scratch / str(step)
        shutil.copytree(source, folder)
        child = os.fork()
        if not child:
            die_at(step, folder)
            do(job, folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            shutil.rmtree(folder)
            return step - 1


if __name__ == "__main__":
    sys.stdout.write(str(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
