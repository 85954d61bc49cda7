"""A SIMULATOR of launchd for tests on machines without one. It is not launchd, and proves nothing about a Mac.

It loads real property lists, starts real processes and keeps them as launchd does, as far as public sources tell. Each rule names
its source: [man] launchd.plist(5) and launchctl(1); [source] core.c of launchd-842.92.1 (2014, the last open one); [reports] what
users of newer systems reported in public; [guess] nobody said. A guessed rule is a switch of `Switches`, so that tests run both ways.

    launchd_sim.py DIR [SWITCH=VALUE...]   serves launchctl at DIR/launchd.sock until its standard input ends, then ends its jobs
    launchctl simulate SWITCH=VALUE...     turns switches meanwhile; no Mac has this verb
"""
import json
import os
import plistlib
import pwd
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time


class Switches:
    """What differs between machines, and what is guessed."""

    gui = 1  # 0: nobody is logged in at the screen, so there is no domain gui/UID. [reports]
    detail = 1  # 0: bootstrap says 5 whatever the cause, as users other than root see it. [reports]
    bootstrap_faults = 0  # So many calls of bootstrap fail and load nothing. [reports: after a bootout]
    bootstrap_fault = 5  # ... with this code.
    on_demand_only = 0  # 1: the domain holds back what no demand starts, such as RunAtLoad. [reports]
    kill_after = 0  # After so many calls of gatewayctl it is killed, which no launchd does.
    settle_ms = 0  # How long a label stays listed after its process was reaped. [guess]

    def __init__(self, words):
        self.set(*words)

    def set(self, *words):
        for word in words:
            key, value = word.split("=")
            getattr(self, key)
            setattr(self, key, int(value))


# [man] The exit status of launchctl is an error number; the texts are those of `launchctl error`.
TEXT = {
    3: "No such process",
    5: "Input/output error",
    17: "File exists",
    37: "Operation already in progress",
    109: "Invalid property list",
    113: "Could not find specified service",
    119: "Service is disabled",
    122: "Path had bad ownership/permissions",
    125: "Domain does not support specified action",
    134: "Service cannot load in requested session",
}
USAGE = 64  # [man]
EX_CONFIG = 78  # [reports] A program that cannot be started, and a log that cannot be opened.
THROTTLE = 10  # [man] ThrottleInterval where the property list has none.
EXIT_TIMEOUT = 5  # [reports] What `print` shows; 20 in [source].
# [source] Crashed counts these signals alone.
CRASHES = {signal.SIGILL, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}

lock = threading.Condition()


class Refusal(Exception):
    def __init__(self, code, verb=None, text=None):
        super().__init__(code)
        self.code = code
        self.text = text or f"{verb} failed: {code}: {TEXT.get(code, 'unknown error')}"


class Job:
    def __init__(self, launchd, domain, path, plist):
        self.launchd, self.domain, self.path, self.plist = launchd, domain, path, plist
        self.label = plist["Label"]
        throttle = plist.get("ThrottleInterval", THROTTLE)
        # [reports] Newer systems ignore 0; 2014's took it. [source] A negative one is ignored.
        self.throttle = throttle if throttle > 0 else THROTTLE
        self.exit_timeout = plist.get("ExitTimeOut", EXIT_TIMEOUT)
        self.state, self.process, self.last_end = "not running", None, "last exit code = (never exited)"
        self.runs, self.last_spawn, self.pended = 0, None, None
        self.throttled = 0
        self.removing = self.kicked = False
        self.timer = self.killer = None
        self.sockets = {}

    def open_sockets(self):
        """[man] Held as long as the label is loaded. [source] One that cannot be bound is left out, and the load goes on."""
        for name, entries in self.plist.get("Sockets", {}).items():
            for entry in entries if isinstance(entries, list) else [entries]:
                family = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}[entry["SockFamily"]]
                listener = socket.socket(family)
                try:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    listener.bind((entry["SockNodeName"], int(entry["SockServiceName"])))
                    listener.listen(4096)
                except OSError:
                    listener.close()
                    continue
                self.sockets.setdefault(name, []).append(listener)

    def watch_sockets(self):
        """[source] A connection that nobody has accepted is a demand, but not while a start is scheduled."""
        listeners = [listener for group in self.sockets.values() for listener in group]
        if listeners:
            threading.Thread(target=self.wait_for_client, args=(listeners,), daemon=True).start()

    def wait_for_client(self, listeners):
        while True:
            ready = select.select(listeners, [], [], 0.05)[0]
            with lock:
                if self.process or self.timer or self.removing:
                    return
                if ready:
                    self.want("sockets", True)
                    lock.notify_all()
                    return

    def want(self, reason, demand):
        """[source] job_dispatch: held back, started, or later."""
        if self.process or self.removing:
            return
        if self.launchd.switches.on_demand_only and not demand:
            self.pended = reason
            self.watch_sockets()
            return
        self.pended = None
        age = None if self.last_spawn is None else int(time.monotonic() - self.last_spawn)
        # [source] Whole seconds since the last start, never for the first one.
        if age is None or age >= self.throttle:
            self.spawn()
        elif not self.timer:
            self.state = "spawn scheduled"
            self.throttled += 1
            self.timer = self.after(self.throttle - age, self.throttle_over)

    def after(self, seconds, call):
        def locked():
            with lock:
                call()
                lock.notify_all()

        timer = threading.Timer(seconds, locked)
        timer.daemon = True
        timer.start()
        return timer

    def throttle_over(self):
        # [source] The timer counts as a demand, whether KeepAlive still holds or not.
        self.timer = None
        self.want("throttle", True)

    def spawn(self):
        self.runs += 1
        self.last_spawn = time.monotonic()
        try:
            self.process = self.exec()
        except (OSError, KeyError):
            self.state = "spawn failed"
            self.ended(EX_CONFIG << 8)
            return
        self.state = "running"
        threading.Thread(target=self.wait, args=(self.process,), daemon=True).start()

    def as_user(self):
        return self.domain == "system" and "UserName" in self.plist

    def open_log(self, path):
        """[source] Opened as the job's user."""
        if not self.as_user():
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.seteuid(pwd.getpwnam(self.plist["UserName"]).pw_uid)
        try:
            return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        finally:
            os.seteuid(0)

    def exec(self):
        plist = self.plist
        # [man] Agents of a login have these, and no profile of a shell. [reports] The label is in XPC_SERVICE_NAME.
        environment = {key: os.environ[key] for key in ("HOME", "USER", "LOGNAME", "SHELL", "TMPDIR") if key in os.environ}
        environment |= {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "XPC_SERVICE_NAME": self.label}
        # Of the simulator alone: the way back to it, and what launch_activate_socket(3) gives on a Mac.
        environment |= {"LAUNCHD_SIM": self.launchd.place, "GATEWAY_LAUNCHCTL": os.path.join(os.path.dirname(__file__), "launchctl")}
        passed = {name: [listener.fileno() for listener in group] for name, group in self.sockets.items()}
        for name, numbers in passed.items():
            environment["LAUNCHD_SIM_SOCKETS"] = f"{name}={','.join(map(str, numbers))}"
        # [man] Values that are not text are dropped.
        environment |= {key: value for key, value in plist.get("EnvironmentVariables", {}).items() if isinstance(value, str)}
        # [man] Umask is a number, or a text in the manner of strtoul.
        umask = plist.get("Umask", 0o22)
        umask = int(umask, 8) if isinstance(umask, str) else umask
        cwd = plist.get("WorkingDirectory", "/")
        opened = []

        def log(key):
            if key not in plist:
                return subprocess.DEVNULL
            # [source] Appended to, made where it is not there; a folder is not made.
            before = os.umask(umask)
            try:
                opened.append(self.open_log(plist[key]))
            finally:
                os.umask(before)
            return opened[-1]

        try:
            return subprocess.Popen(
                plist.get("ProgramArguments") or [plist["Program"]],
                executable=plist.get("Program"),
                # [source] A working directory that is not there is only logged.
                cwd=cwd if os.path.isdir(cwd) else "/",
                env=environment,
                umask=umask,
                stdin=subprocess.DEVNULL,
                stdout=log("StandardOutPath"),
                stderr=log("StandardErrorPath"),
                # [man] For daemons only, which are root's where they do not say.
                **({"user": plist["UserName"], "group": pwd.getpwnam(plist["UserName"]).pw_gid} if self.as_user() else {}),
                start_new_session=True,  # [source] setsid before exec
                pass_fds=[number for numbers in passed.values() for number in numbers],
            )
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def wait(self, process):
        # Not reaped yet while its group gets the signal: the number is still its own.
        end = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with lock:
            # [source] One SIGTERM, never a SIGKILL, to what is left of the group, right after the exit.
            if not self.plist.get("AbandonProcessGroup"):
                try:
                    os.killpg(process.pid, signal.SIGTERM)
                except (ProcessLookupError, PermissionError):
                    pass
            process.wait()
            self.process = None
            self.ended(end.si_status << 8 if end.si_code == os.CLD_EXITED else end.si_status)
            lock.notify_all()

    def ended(self, status):
        """[source] job_reap: what was recorded, then whether it is wanted again."""
        if self.killer:
            self.killer.cancel()
            self.killer = None
        by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = None if by_signal else os.WEXITSTATUS(status)
        name = ": EX_CONFIG" if code == EX_CONFIG else ""
        self.last_end = (
            f"last terminating signal = {signal.strsignal(by_signal)}: {by_signal}" if by_signal else f"last exit code = {code}{name}"
        )
        if self.removing:
            settle = self.launchd.switches.settle_ms
            self.after(settle / 1000, self.forget) if settle else self.forget()
            return
        self.state = "not running"
        kicked, self.kicked = self.kicked, False
        if kicked:
            self.want("kickstart", True)
        elif self.is_kept(code, by_signal):
            self.want("inefficient", False)
        else:
            self.watch_sockets()

    def is_kept(self, code, by_signal):
        keep = self.plist.get("KeepAlive", False)
        if not isinstance(keep, dict):
            return keep
        # [source] Any of them is enough.
        return any(
            [
                "SuccessfulExit" in keep and keep["SuccessfulExit"] == (code == 0),
                "Crashed" in keep and keep["Crashed"] == (by_signal in CRASHES),
                any(os.path.exists(path) == wanted for path, wanted in keep.get("PathState", {}).items()),
            ]
        )

    def forget(self):
        # [source] The time of the last start goes with it: loaded again, it starts at once.
        self.launchd.jobs.pop((self.domain, self.label), None)
        for group in self.sockets.values():
            for listener in group:
                listener.close()

    def stop(self):
        """[source] job_stop: SIGTERM, and SIGKILL after ExitTimeOut; 0 is for ever. A second stop changes nothing."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        if not self.process:
            return
        if self.state == "running":
            self.state = "SIGTERMed"
            os.kill(self.process.pid, signal.SIGTERM)
            if self.exit_timeout:
                self.killer = self.after(self.exit_timeout, self.kill)

    def kill(self):
        if self.process:
            self.state = "SIGKILLed"
            os.kill(self.process.pid, signal.SIGKILL)

    def print(self):
        """[reports] Not an interface, says the man page. An environment may hold what looks like other lines."""
        arguments = "".join(f"\t\t{word}\n" for word in self.plist.get("ProgramArguments", []))
        environment = "".join(f"\t\t{key} => {value}\n" for key, value in self.plist.get("EnvironmentVariables", {}).items())
        lines = [
            f"active count = {1 if self.process else 0}",
            f"path = {self.path}",
            f"type = {'LaunchDaemon' if self.domain == 'system' else 'LaunchAgent'}",
            f"state = {self.state}",
            "",
            f"program = {(self.plist.get('ProgramArguments') or [self.plist.get('Program')])[0]}",
            f"arguments = {{\n{arguments}\t}}",
            f"environment = {{\n{environment}\t}}",
            f"domain = {self.domain} [100003]",
            f"minimum runtime = {self.throttle}",
            f"exit timeout = {self.exit_timeout}",
            f"runs = {self.runs}",
            f"simulated throttled starts = {self.throttled}",  # Of the simulator alone.
        ]
        if self.process:
            lines += [f"pid = {self.process.pid}", "immediate reason = inefficient"]
        properties = [name for name, key in (("keepalive", "KeepAlive"), ("runatload", "RunAtLoad")) if self.plist.get(key) is True]
        if self.pended:
            lines.append(f"pended nondemand spawn = {self.pended}")
        lines += [self.last_end, "resource coalition = {\n\t\tstate = active\n\t\tpid = 1\n\t}", "spawn type = interactive (4)"]
        # [reports] KeepAlive with conditions is not among them.
        lines.append(f"properties = {' | '.join([*properties, 'inferred program'])}")
        return f"{self.domain}/{self.label} = {{\n" + "".join(f"\t{line}\n" if line else "\n" for line in lines) + "}\n"


class Launchd:
    def __init__(self, switches, place):
        self.switches, self.place, self.jobs, self.disabled = switches, place, {}, set()

    def domain(self, name, verb):
        kind = name.split("/")[0]
        if kind == "gui" and not self.switches.gui:
            # [reports] What bootstrap and print say where nobody is logged in.
            raise Refusal(125, verb)
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

    def bootout(self, target):
        # [reports] It answers at once, and the label stays listed until the process is reaped.
        job = self.target(target, 3, "Boot-out")
        job.removing = True
        if job.process:
            job.stop()
        else:
            job.stop()
            job.forget()

    def kickstart(self, *words):
        *flags, target = words
        job = self.target(target, 113, "Kickstart")
        if job.removing:
            raise Refusal(37, "Kickstart")
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
        rows = "".join(f'\t\t"{label}" => disabled\n' for label in sorted(self.disabled))
        return f"\tdisabled services = {{\n{rows}\t}}\n"

    def list(self):
        rows = "".join(f"{job.process.pid if job.process else '-'}\t0\t{job.label}\n" for job in self.jobs.values())
        return f"PID\tStatus\tLabel\n{rows}"

    VERBS = ("bootstrap", "bootout", "kickstart", "print", "enable", "disable", "print-disabled", "list")

    def kill_caller(self, launchctl):
        """Counts a call of gatewayctl, and kills it after the last one. A gateway asks about its own job meanwhile, which is not meant."""
        with open(f"/proc/{launchctl}/stat") as stat:
            parent = int(stat.read().rpartition(")")[2].split()[1])
        with open(f"/proc/{parent}/comm") as comm:
            if comm.read().strip() != "gatewayctl":
                return
        self.switches.kill_after -= 1
        if not self.switches.kill_after:
            os.kill(parent, signal.SIGKILL)

    CHANGES = ("bootstrap", "bootout", "kickstart", "enable", "disable")

    def call(self, words, peer, uid):
        # [man] Only root changes what is in the domain of the machine; anybody may print it.
        if uid and words[:1] and words[0] in self.CHANGES and any(word.split("/")[0] == "system" for word in words[1:]):
            return 1, "", f"{words[0]} failed: 1: Operation not permitted\n"
        answer = self.answer(words)
        if words[:1] != ["simulate"] and self.switches.kill_after:
            self.kill_caller(peer)
        return answer

    def answer(self, words):
        if not words or words[0] not in (*self.VERBS, "simulate"):
            return USAGE, "", "Unrecognized subcommand\n"
        verb, *arguments = words
        if verb == "simulate":
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
