#!/usr/bin/env python3
"""Runs a command against a freshly started `weir standalone` and ends the server afterwards.

  with_server.py WEIR COMMAND…     the command finds the NameServer in WEIRMQ_TEST_NAMESRV
"""
import os
import subprocess
import sys
import tempfile


def main():
    weir, command = sys.argv[1], sys.argv[2:]
    with tempfile.TemporaryDirectory() as data, tempfile.TemporaryFile() as log:
        ports = ["--namesrv-port", "0", "--broker-port", "0", "--admin-port", "0"]
        arguments = [weir, "standalone", "--data", data, "--host", "127.0.0.1", *ports]
        server = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            ready = next((line for line in server.stdout if line.startswith("ready ")), None)
            if ready is None:
                log.seek(0)
                sys.exit(f"the server did not start:\n{log.read().decode(errors='replace')}")
            addresses = dict(word.split("=", 1) for word in ready.split()[1:])
            env = os.environ | {"WEIRMQ_TEST_NAMESRV": addresses["namesrv"]}
            code = subprocess.run(command, env=env).returncode
        finally:
            server.terminate()
            stopped = server.wait(timeout=30)
        if stopped != 0:
            sys.exit(f"the server ended with {stopped}")
        sys.exit(code)


main()
