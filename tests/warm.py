"""A Python that starts in a moment: it runs scripts in forks of a process that has imported what they import.

The program that ``start_server`` makes takes the arguments of ``python``, and has the environment, files, signals and
exit status that Python itself would have. It is Python itself if a variable that is read at import, such as HF_HOME,
differs from the server's, or for flags other than -c and -u.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from select import select
from socket import AF_UNIX, recv_fds, send_fds, socket

READ_AT_IMPORT = ("HF_", "TRANSFORMERS_", "OMP_", "MKL_", "OPENBLAS_", "PYTHON", "LC_", "LANG", "LD_", "CUDA_")
FORKED, REFUSED = b"f", b"r"


def start_server(directory: Path) -> tuple[str, subprocess.Popen]:
    """The path of the program, and the server: it imports at the first request, and ends with this process."""
    program, server = directory / "python", socket(AF_UNIX)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" "{directory}/socket" "$0" "$@"\n')
    program.chmod(0o755)
    server.bind(f"{directory}/socket")
    server.listen(99)
    process = subprocess.Popen(
        [sys.executable, __file__, str(server.fileno())],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1],
        start_new_session=True, pass_fds=[server.fileno()],
    )  # fmt: skip
    server.close()
    return str(program), process


def serve(server: socket) -> dict:
    """Fork for every request; returns in the forks only, with the request."""
    if sys.stdin in select([server, sys.stdin], [], [])[0]:  # standard input ends with the tests
        os._exit(0)
    for script in Path("scripts").glob("*.py"):
        runpy.run_path(str(script), run_name="imported")
    import accelerate.commands.accelerate_cli  # noqa: F401

    gc.freeze()  # a collection in a fork does not copy what all of them share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the supervisors
    while sys.stdin not in select([server, sys.stdin], [], [])[0]:
        connection, _ = server.accept()
        if os.fork() == 0:
            server.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return supervise(connection)
        connection.close()
    os._exit(0)


def supervise(connection: socket) -> dict:
    """Fork once more, pass signals to the fork and its status back; returns in the fork only, with the request."""
    size, files, *_ = recv_fds(connection, 8, 3)
    request = json.loads(connection.makefile("rb").read(int.from_bytes(size, "big")))
    environments = os.environ, request["environment"]
    own, wanted = ({item for item in each.items() if item[0].startswith(READ_AT_IMPORT)} for each in environments)
    if any(name != "PYTHONPATH" for name, _ in own ^ wanted):
        connection.sendall(REFUSED)
        os._exit(0)
    if (process := os.fork()) == 0:
        for number, (file, name) in enumerate(zip(files, ("stdin", "stdout", "stderr"), strict=True)):
            os.dup2(file, number)
            old, mode = getattr(sys, name), "w" if number else "r"
            buffering = 1 if number == 2 else -1  # stderr is shown line by line
            setattr(
                sys, name, os.fdopen(number, mode, buffering, encoding=old.encoding, errors=old.errors, closefd=False)
            )
        os.closerange(3, max(*files, connection.detach()) + 1)
        return request
    for file in files:
        os.close(file)
    with suppress(OSError):
        connection.sendall(FORKED)
    ended, sent = os.pidfd_open(process), b"any"
    while sent and ended not in select([ended, connection], [], [])[0]:
        sent = connection.recv(1)
        os.kill(process, sent[0] if sent else signal.SIGKILL)  # the program itself was killed
    status = os.waitpid(process, 0)[1]
    with suppress(OSError):
        connection.sendall(status.to_bytes(4, "big"))
    os._exit(0)


def run(program: str, arguments: list[str], environment: dict[str, str], directory: str) -> None:
    numpy.random.seed()  # as in a new process; the fork seeds Python's own generator
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.executable = program  # so that its own processes start in a moment too
    if arguments[0] == "-u":
        sys.stdout.reconfigure(write_through=True)
        del arguments[0]
    sys.path[:1] = os.path.dirname(os.path.abspath(arguments[0])), *filter(None, os.getenv("PYTHONPATH", "").split(":"))
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def ask(path: str, program: str, *arguments: str) -> int:
    """Ask the server for a process, stand for it, and return its exit status."""
    request = {"program": program, "arguments": arguments, "environment": dict(os.environ), "directory": os.getcwd()}
    content, connection = json.dumps(request).encode(), socket(AF_UNIX)
    try:
        if arguments[0].startswith("-") and arguments[0] not in ("-c", "-u"):
            raise OSError
        connection.connect(path)
        send_fds(connection, [len(content).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(content)
        forked = connection.recv(1) == FORKED
    except OSError:  # the server could not import
        forked = False
    if not forked:
        os.execv(sys.executable, [sys.executable, *arguments])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    status = os.waitstatus_to_exitcode(int.from_bytes(connection.recv(4), "big"))
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(ask(*sys.argv[1:]))
    import gc
    import runpy

    import numpy

    run(**serve(socket(fileno=int(sys.argv[1]))))
