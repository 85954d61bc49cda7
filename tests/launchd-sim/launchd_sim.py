"""A SIMULATOR of launchd for tests on machines without one. It is not launchd, and proves nothing about a Mac.

It loads real property lists, starts real processes and keeps them as launchd does, as far as public sources tell. Each rule names
its source: [man] launchd.plist(5) and launchctl(1); [source] core.c of launchd-842.92.1 (2014, the last open one); [reports] what
users of newer systems reported in public, where it counts with how many; [observed] what third parties found by looking at newer
systems; [guess] nobody said. A guessed rule, and one that reports contradict, is a switch (switches.py), so that tests run both ways.

    launchd_sim.py DIR [SWITCH=VALUE...]   serves launchctl at DIR/launchd.sock until its standard input ends, then ends its jobs
    launchctl simulate SWITCH=VALUE...     turns switches meanwhile; no Mac has this verb
"""
import json
import os
import plistlib
import resource
import signal
import socket
import struct
import sys
import threading

sys.dont_write_bytecode = True  # The folder belongs to the repository.
from job import Job, lock
from switches import PENALTY_BOX, USAGE, Refusal, Switches


class Launchd:
    def __init__(self, switches, place):
        self.switches, self.place, self.jobs, self.disabled = switches, place, {}, set()

    def domain(self, name, verb):
        kind = name.split("/")[0]
        if kind == "gui" and not self.switches.gui:
            # [reports] What bootstrap and print say where nobody is logged in.
            raise Refusal(self.switches.no_domain, verb)
        if kind not in ("gui", "user", "system"):
            raise Refusal(125, verb)
        return name

    def target(self, name, code, verb):
        domain, _, label = name.rpartition("/")
        job = self.jobs.get((self.domain(domain, verb), label))
        if not job:
            place = "system" if domain == "system" else "user {}: {}".format(*domain.split("/"))
            unknown = f'Could not find service "{label}" in domain for {place}'
            # [reports] print begins with another line.
            text = {"print": f"Bad request.\n{unknown}", "Kickstart": unknown}.get(verb)
            raise Refusal(code, verb, text)
        return job

    def bootstrap(self, domain, path):
        verb = "Bootstrap"
        self.domain(domain, verb)
        if self.switches.bootstrap_faults:
            self.switches.bootstrap_faults -= 1
            raise Refusal(self.switches.bootstrap_fault, verb)
        try:
            self.load(domain, path)
        except Refusal as refusal:
            raise refusal if self.switches.detail else Refusal(5, verb)

    def load(self, domain, path):
        verb = "Bootstrap"
        try:
            # [source] Not writable by group or others, a regular file with the right ending.
            if os.stat(path).st_mode & 0o022 or not path.endswith(".plist"):
                raise Refusal(122, verb)
            with open(path, "rb") as file:
                plist = plistlib.load(file)
            label = plist["Label"]
        except (OSError, KeyError):
            raise Refusal(5, verb)
        except (plistlib.InvalidFileException, ValueError, SyntaxError, Exception) as error:
            raise error if isinstance(error, Refusal) else Refusal(109, verb)
        sessions = plist.get("LimitLoadToSessionType", "Aqua")  # [source] Aqua where an agent does not say.
        session = {"gui": "Aqua", "user": "Background", "system": sessions}[domain.split("/")[0]]
        if session not in sessions and session != sessions:
            raise Refusal(134, verb)
        if label in self.disabled:
            raise Refusal(119, verb)
        # [reports] A label that still ends answers as one that is there does.
        if job := self.jobs.get((domain, label)):
            raise Refusal(37 if job.removing else 17, verb)
        job = self.jobs[domain, label] = Job(self, domain, path, plist)
        job.open_sockets()
        keep = plist.get("KeepAlive", False)
        # [source] SuccessfulExit and Crashed imply RunAtLoad.
        if plist.get("RunAtLoad") or keep is True or (isinstance(keep, dict) and {"SuccessfulExit", "Crashed"} & set(keep)):
            job.want("speculative", False)
        else:
            job.watch_sockets()

    def bootout(self, *words):
        *flags, target = words
        # [reports] A system that does not know it stops nothing.
        if flags and (flags != ["--wait"] or not self.switches.has_wait):
            raise TypeError
        # [reports] It answers at once, and the label stays listed until the process is reaped.
        job = self.target(target, 3, "Boot-out")
        job.removing = True
        if job.process:
            job.stop()
        else:
            job.stop()
            job.forget()
        while "--wait" in flags and self.jobs.get((job.domain, job.label)) is job:
            lock.wait()

    def kickstart(self, *words):
        *flags, target = words
        job = self.target(target, 113, "Kickstart")
        if job.removing:
            raise Refusal(37, "Kickstart")
        while job.boxed and self.switches.penalty_hangs and not job.removing:
            lock.wait()
        if job.boxed:
            raise Refusal(PENALTY_BOX, "Kickstart")
        if "-k" in flags and job.process:
            job.kicked = True
            job.stop()
        else:
            job.want("kickstart", True)
        # [reports] It blocks until the job is started, through a throttle, too.
        runs = job.runs
        while not (job.process and (job.runs > runs or "-k" not in flags)):
            lock.wait()
            if job.removing:
                raise Refusal(113, "Kickstart")
            if job.boxed:
                raise Refusal(PENALTY_BOX, "Kickstart")
        return f"{job.process.pid}\n" if "-p" in flags else ""

    def print(self, target):
        if target.count("/") > (not target.startswith("system")):
            return self.target(target, 113, "print").print()
        self.domain(target, "print")
        rows = "".join(
            f"\t\t{job.process.pid if job.process else 0} - {job.label}\n" for job in self.jobs.values() if job.domain == target
        )
        return f"{target} = {{\n\ttype = {target.split('/')[0]}\n\tservices = {{\n{rows}\t}}\n}}\n"

    def enable(self, target):
        # [man] Any label will do, whether it is loaded or not.
        self.disabled.discard(target.rpartition("/")[2])

    def disable(self, target):
        self.disabled.add(target.rpartition("/")[2])

    def print_disabled(self, domain):
        word = self.switches.disabled_word(True)
        rows = "".join(f'\t\t"{label}" => {word}\n' for label in sorted(self.disabled))
        # [reports] Another block may follow.
        more = "" if self.switches.macos < 13 else "\tlogin item associations = {\n\t}\n"
        return f"\tdisabled services = {{\n{rows}\t}}\n{more}"

    def help(self, verb):
        # [man] [reports] Its text is where a flag is known from.
        flag = " [--wait]" if verb == "bootout" and self.switches.has_wait else ""
        return f"Usage: launchctl {verb}{flag} <domain-target> [service-path, ...] | <service-target>\n"

    def list(self):
        rows = "".join(f"{job.process.pid if job.process else '-'}\t0\t{job.label}\n" for job in self.jobs.values())
        return f"PID\tStatus\tLabel\n{rows}"

    VERBS = ("bootstrap", "bootout", "kickstart", "print", "enable", "disable", "print-disabled", "list", "help")

    def is_of_gatewayctl(self, launchctl):
        """A gateway asks about its own job meanwhile, which is not meant."""
        with open(f"/proc/{launchctl}/stat") as stat:
            parent = int(stat.read().rpartition(")")[2].split()[1])
        with open(f"/proc/{parent}/comm") as comm:
            return parent if comm.read().strip() == "gatewayctl" else None

    def counts_down(self, switch, launchctl):
        """Counts a call of gatewayctl down to nought; its process where this is the last one."""
        left = getattr(self.switches, switch)
        parent = self.is_of_gatewayctl(launchctl) if left else None
        if not parent:
            return None
        setattr(self.switches, switch, left - 1)
        return parent if left == 1 else None

    CHANGES = ("bootstrap", "bootout", "kickstart", "enable", "disable")

    def call(self, words, peer, uid):
        # [man] Only root changes what is in the domain of the machine; anybody may print it.
        if uid and words[:1] and words[0] in self.CHANGES and any(word.split("/")[0] == "system" for word in words[1:]):
            return 1, "", f"{words[0]} failed: 1: Operation not permitted\n"
        if words[:1] == ["simulate"]:
            return self.answer(words)
        code = self.switches.fault_code if self.counts_down("fault_at", peer) else 0
        if code and not self.switches.fault_late:
            return code, "", f"{words[0]} failed: {code}: injected\n"
        answer = self.answer(words)
        if parent := self.counts_down("kill_after", peer):
            os.kill(parent, signal.SIGKILL)
        return (code, "", f"{words[0]} failed: {code}: injected\n") if code else answer

    def answer(self, words):
        if not words or words[0] not in (*self.VERBS, "simulate"):
            return USAGE, "", "Unrecognized subcommand\n"
        verb, *arguments = words
        if verb == "simulate":
            if arguments == ["break-sockets"]:
                [job.break_sockets() for job in self.jobs.values()]
            elif arguments[0].startswith("left="):
                return 0, str(getattr(self.switches, arguments[0][5:])), ""
            else:
                self.switches.set(*arguments)
            return 0, "", ""
        with lock:
            try:
                out = getattr(self, verb.replace("-", "_"))(*arguments)
                return 0, out or "", ""
            except Refusal as refusal:
                return refusal.code, "", refusal.text + "\n"
            except TypeError:
                return USAGE, "", f"Usage: launchctl {verb}\n"


def serve(launchd, listener):
    def one(connection):
        with connection, connection.makefile("rw") as stream:
            peer = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            json.dump(launchd.call(json.loads(stream.readline()), peer[0], peer[1]), stream)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=one, args=(connection,), daemon=True).start()


def main():
    place, *words = sys.argv[1:]
    # [reports] What `launchctl limit` says of maxfiles: 256 and unlimited.
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    launchd = Launchd(Switches(words), place)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.join(place, "launchd.sock"))
    listener.listen(64)
    os.chmod(os.path.join(place, "launchd.sock"), 0o777)  # Every user's launchctl asks it.
    threading.Thread(target=serve, args=(launchd, listener), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    with lock:
        for job in launchd.jobs.values():
            job.removing = True
            if job.process:
                os.killpg(job.process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
