"""SIMULATOR: a job, its sockets, and its lives. The sources of its rules are those of launchd_sim.py."""
import hashlib
import os
import pwd
import select
import signal
import socket
import subprocess
import threading
import time

from switches import CRASHES, CRASHES_OF_GRACE, EX_CONFIG, EXIT_TIMEOUT, THROTTLE, THROTTLE_MOST

lock = threading.Condition()


known = {}


def identity(program):
    """What a code directory hash would say of a program; none where it is not there."""
    try:
        facts = os.stat(program)
        # Nobody else is answered meanwhile.
        file = (facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size)
        if file not in known:
            with open(program, "rb") as text:
                known[file] = hashlib.sha256(text.read()).digest()
        return known[file]
    except OSError:
        return None


class Job:
    def __init__(self, launchd, domain, path, plist):
        self.launchd, self.domain, self.path, self.plist = launchd, domain, path, plist
        self.label = plist["Label"]
        throttle = plist.get("ThrottleInterval", THROTTLE)
        # [source] A negative one is ignored.
        least = 0 if launchd.switches.throttle_zero else 1
        self.throttle = self.base_throttle = throttle if throttle >= least else THROTTLE
        self.exit_timeout = plist.get("ExitTimeOut", EXIT_TIMEOUT)
        self.state, self.process, self.last_end = "not running", None, "last exit code = (never exited)"
        self.runs, self.last_spawn, self.pended = 0, None, None
        self.throttled = 0
        self.removing = self.kicked = False
        self.timer = self.killer = None
        self.sockets = {}
        self.crashes = self.failed_starts = 0
        self.boxed = self.is_refused = False
        # [reports] Noted when the job is loaded, whatever its program is later.
        self.identity = identity(self.program()) if launchd.switches.pinned else None

    def program(self):
        return self.plist.get("Program") or (self.plist.get("ProgramArguments") or [""])[0]

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
                    listener.setblocking(not self.launchd.switches.nonblock)
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

    def break_sockets(self):
        """[reports: 1] accept fails with EINVAL for ever, in each process, until the job is loaded anew."""
        for group in self.sockets.values():
            for listener in group:
                listener.shutdown(socket.SHUT_RDWR)

    def want(self, reason, demand):
        """[source] job_dispatch: held back, started, or later."""
        if self.process or self.removing or self.boxed:
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
        # [reports] Another program than the one that was noted.
        self.is_refused = bool(self.identity) and identity(self.program()) != self.identity
        if self.is_refused and self.launchd.switches.pinned == 1:
            self.state = "spawn failed"
            self.ended(signal.SIGKILL, "OS_REASON_CODESIGNING")
            return
        try:
            if self.is_refused:
                raise OSError
            self.process = self.exec()
        except (OSError, KeyError):
            self.state = "spawn failed"
            self.failed_starts += 1
            # [reports] Only a bootout and a bootstrap lead out of it.
            self.boxed = 0 < self.launchd.switches.penalty <= self.failed_starts
            self.ended(EX_CONFIG << 8)
            return
        self.failed_starts = 0
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
        environment |= {"GATEWAY_LAUNCHD_PID": str(os.getpid()), "LAUNCHD_SIM": self.launchd.place, "GATEWAY_LAUNCHCTL": os.path.join(os.path.dirname(__file__), "launchctl")}
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

    def slow_down(self, by_signal):
        """[observed] Beyond some crashes each one doubles the throttle; an orderly end takes it back."""
        is_crash = by_signal in CRASHES | {signal.SIGKILL} and self.state != "SIGKILLed"
        self.crashes = self.crashes + 1 if is_crash else 0
        doublings = max(0, self.crashes - CRASHES_OF_GRACE)
        if self.launchd.switches.exponential:
            self.throttle = min(self.base_throttle << min(doublings, 16), THROTTLE_MOST)

    def ended(self, status, reason=None):
        """[source] job_reap: what was recorded, then whether it is wanted again."""
        if self.killer:
            self.killer.cancel()
            self.killer = None
        by_signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        code = None if by_signal else os.WEXITSTATUS(status)
        name = ": EX_CONFIG" if code == EX_CONFIG else ""
        self.slow_down(by_signal)
        self.last_end = f"last exit reason = {reason}" if reason else (
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
            *([f"base minimum runtime = {self.base_throttle}"] if self.launchd.switches.exponential else []),
            f"simulated throttled starts = {self.throttled}",  # Of the simulator alone.
        ]
        if self.process:
            lines += [f"pid = {self.process.pid}", "immediate reason = inefficient"]
        properties = [name for name, key in (("keepalive", "KeepAlive"), ("runatload", "RunAtLoad")) if self.plist.get(key) is True]
        if self.pended:
            lines.append(f"pended nondemand spawn = {self.pended}")
        lines += [self.last_end, "resource coalition = {\n\t\tstate = active\n\t\tpid = 1\n\t}", "spawn type = interactive (4)"]
        if self.launchd.switches.has_job_state:
            lines.append(f"job state = {'running' if self.process else 'exited'}")
        if self.launchd.switches.exponential:
            properties.append("exponential throttling")
        if self.identity:
            properties += ["managed LWCR"] + (["needs LWCR update"] if self.is_refused else [])
        # [reports] KeepAlive with conditions is not among them.
        lines.append(f"properties = {' | '.join([*properties, 'inferred program'])}")
        return f"{self.domain}/{self.label} = {{\n" + "".join(f"\t{line}\n" if line else "\n" for line in lines) + "}\n"
