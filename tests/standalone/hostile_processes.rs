//! Processes of another user that harm whoever looks at them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::gateway::{ctl_in, said};
use crate::support::{nobody, port, servers, skip};

/// Listens, and says that a gigabyte of zeros are its arguments and variables: the places of both in its
/// memory are its own choice.
const ZEROS: &str = "
import ctypes, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
size = 1 << 30
zeros = libc.mmap(None, size, 1, 0x4022, -1, 0)
fields = open('/proc/self/stat').read().rpartition(')')[2].split()
start_code, end_code, start_stack = (int(fields[at]) for at in (23, 24, 25))
start_data, end_data, start_brk = (int(fields[at]) for at in (42, 43, 44))
libc.sbrk.restype = ctypes.c_void_p
class Map(ctypes.Structure):
    _fields_ = [(str(at), ctypes.c_uint64) for at in range(12)] + [('size', ctypes.c_uint32), ('exe', ctypes.c_int32)]
end = zeros + size - 1
map = Map(start_code, end_code, start_data, end_data, start_brk, libc.sbrk(ctypes.c_long(0)), start_stack,
          zeros, end, zeros, end, 0, 0, -1)
PR_SET_MM, PR_SET_MM_MAP = 35, 14
if libc.prctl(PR_SET_MM, PR_SET_MM_MAP, ctypes.byref(map), ctypes.c_long(ctypes.sizeof(map)), 0) != 0:
    print('no', flush=True)
";

/// Listens and stays.
const LISTEN: &str = "
import socket, sys, time
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
print('listening', flush=True)
time.sleep(1000)
";

/// A process of nobody that listens at a port.
struct Stranger {
    child: Child,
    port: u16,
    said: String,
}

impl Stranger {
    fn start(python: &Path, script: &str) -> Self {
        let port = port::private();
        let mut command = nobody::command(python, &["-c", script, &port.to_string()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        Self { child, port, said }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks at who has the port: with a gigabyte and a half of memory, and a minute.
fn looked(state: &Path, port: u16) -> Output {
    let ctl = ctl_in(state);
    let mut command = Command::new("timeout");
    command.args(["60", "sh", "-c", "ulimit -v 1500000; exec \"$@\"", "sh"]);
    command.arg(ctl.get_program()).args(ctl.get_args());
    for (name, value) in ctl.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let port = port.to_string();
    command
        .args(["clean", "--dry-run", "--port", &port])
        .output()
        .unwrap()
}

fn is_named(output: &Output, stranger: &Stranger) {
    let text = said(output);
    let pid = format!("pid {}", stranger.child.id());
    assert!(text.contains(&pid), "{:?} {text}", output.status);
}

#[test]
fn arguments_of_a_gigabyte_are_not_read() {
    if !nobody::can_be() || !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = [ZEROS, LISTEN].concat();
    let stranger = Stranger::start(&servers::interpreter(), &script);
    if stranger.said.trim() == "no" {
        skip::because("this kernel lets no process choose the place of its arguments");
        return;
    }
    is_named(&looked(dir.path(), stranger.port), &stranger);
}

#[test]
fn a_program_of_a_terabyte_is_not_searched() {
    if !nobody::can_be() || !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("python");
    fs::copy(servers::interpreter(), &program).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&program).unwrap();
    file.set_len(1 << 40).unwrap();
    drop(file);
    let stranger = Stranger::start(&program, LISTEN);
    is_named(&looked(&dir.path().join("state"), stranger.port), &stranger);
}
