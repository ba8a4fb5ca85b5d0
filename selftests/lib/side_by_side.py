# SPDX-License-Identifier: Apache-2.0
"""Parts of a suite in processes of their own, a few at a time: mostly they wait for packets."""
import concurrent.futures
import subprocess


def run(commands, jobs):
    """How many of the commands failed. What each printed comes out when it is done."""
    procs = []

    def one(argv):
        proc = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        procs.append(proc)
        print(proc.communicate()[0], end="", flush=True)
        return proc.returncode != 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(one, argv) for argv in commands]
        try:
            return sum(job.result() for job in running)
        finally:
            for job in running:
                job.cancel()
            for proc in procs:
                proc.terminate()  # one that has ended does not mind
