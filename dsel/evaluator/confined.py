"""What runs one program that a model wrote: this file is started by `dsel.evaluator.sandbox`, never imported.

It confines itself, reads the program from its standard input and runs it. Its standard output says how that went:
first what of the confinement could be had, one word each, then the token it was given if the program came to its end.
"""

import ctypes
import os
import resource
import signal
import sys

NEW_USER, NEW_NETWORK, NEW_PROCESSES, NEW_IPC = 0x10000000, 0x40000000, 0x20000000, 0x08000000
DIE_WITH_PARENT, NO_NEW_PRIVILEGES = 1, 38  # of prctl


def main(cpu_seconds: int, memory: int, processes: int, file_size: int) -> None:
    report = os.dup(1)
    token, program = sys.stdin.buffer.readline(), sys.stdin.buffer.read()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    libc = ctypes.CDLL(None, use_errno=True)
    alone = hasattr(libc, "unshare") and libc.unshare(NEW_USER | NEW_NETWORK | NEW_PROCESSES | NEW_IPC) == 0
    if alone:  # the next child is the first process of a world of its own, which ends with it
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            return
        libc.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        os.write(report, b"network ")
    if hasattr(libc, "prctl"):
        libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    for limit, value in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    code = compile(program, "program", "exec")
    exec(code, {"__name__": "__main__"})
    os.write(report, token)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
