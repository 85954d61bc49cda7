"""SIMULATOR: what differs between Macs, and what launchctl says. A number in it is a code of launchctl's.

A switch stands for what differs between machines or systems, or for what is only guessed; its comment names the source, and the
tests run both of its values.
"""
import signal


class Switches:
    macos = 15  # 12, 13, 15 or 26: which texts and codes it has, see below. [reports]
    gui = 1  # 0: nobody is logged in at the screen, so there is no domain gui/UID. [reports]
    detail = 1  # 0: bootstrap says 5 whatever the cause, as users other than root see it. [reports]
    bootstrap_faults = 0  # So many calls of bootstrap fail and load nothing. [reports: after a bootout]
    bootstrap_fault = 5  # ... with this code.
    on_demand_only = 0  # 1: the domain holds back what no demand starts, such as RunAtLoad. [reports: 13]
    kill_after = 0  # After so many calls of gatewayctl it is killed, which no launchd does.
    fault_at = 0  # The call of gatewayctl of this number fails.
    fault_code = 5  # ... with this code.
    fault_late = 0  # 1: what was asked is done all the same.
    settle_ms = 0  # How long a label stays listed after its process was reaped. [guess]
    pinned = 0  # 1: launchd starts no other program than the one it saw at the load: the kernel kills it. 2: the start ends with 78.
    # [reports: 4 of each kind; others replace programs without trouble, so 0 is the default]
    penalty = 0  # After so many starts that failed in a row a job is in the penalty box. [reports: 3 of the box; its number is a guess]
    penalty_hangs = 0  # 1: kickstart of it hangs, instead of 139. [reports of both]
    exponential = 0  # 1: crashes double the throttle, up to 1200 s, which print shows. [observed, for jobs with that property]
    throttle_zero = 0  # 1: ThrottleInterval 0 means none. [source; newer systems ignore it, by 2 reports]
    nonblock = 0  # 1: the sockets of a job have O_NONBLOCK. [guess: nobody said, man says nothing]

    def __init__(self, words):
        self.set(*words)

    def set(self, *words):
        for word in words:
            key, value = word.split("=")
            getattr(self, key)
            setattr(self, key, int(value))

    @property
    def has_wait(self):
        """[reports: 4] bootout --wait is of macOS 26; 14 and 15 answer with the usage and do not stop the job."""
        return self.macos >= 26

    @property
    def no_domain(self):
        """[reports] What is said of a domain that is not there. That it was 112 on older systems, 2 reports; from which on, a guess."""
        return 112 if self.macos < 13 else 125

    def disabled_word(self, is_disabled):
        """[reports: 4] print-disabled up to macOS 12, and since."""
        if self.macos < 13:
            return "true" if is_disabled else "false"
        return "disabled" if is_disabled else "enabled"

    @property
    def has_job_state(self):
        """[reports] Older prints have no line `job state`; from which on it is there, a guess."""
        return self.macos >= 13


# [man] The exit status of launchctl is an error number; the texts are those of `launchctl error`.
TEXT = {
    3: "No such process",
    5: "Input/output error",
    17: "File exists",
    37: "Operation already in progress",
    109: "Invalid property list",
    112: "Could not find specified domain",
    113: "Could not find specified service",
    119: "Service is disabled",
    122: "Path had bad ownership/permissions",
    125: "Domain does not support specified action",
    134: "Service cannot load in requested session",
    139: "Service cannot presently execute",
}
USAGE = 64  # [man]
PENALTY_BOX = 139  # [reports]
EX_CONFIG = 78  # [reports] A program that cannot be started, and a log that cannot be opened.
THROTTLE = 10  # [man] ThrottleInterval where the property list has none.
THROTTLE_MOST = 1200  # [observed] What doubling ends at.
CRASHES_OF_GRACE = 3  # [guess] Before it begins.
EXIT_TIMEOUT = 5  # [reports] What `print` shows; 20 in [source].
# [source] Crashed counts these signals alone.
CRASHES = {signal.SIGILL, signal.SIGABRT, signal.SIGFPE, signal.SIGBUS, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP}


class Refusal(Exception):
    def __init__(self, code, verb=None, text=None):
        super().__init__(code)
        self.code = code
        self.text = text or f"{verb} failed: {code}: {TEXT.get(code, 'unknown error')}"
