//! Processes: facts, ancestors and descendants, and descriptors that identify one process for good.

mod ended;
mod exit_status;
mod facts;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod kernel;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod kernel;
mod key;
pub mod orphans;
#[cfg(target_os = "linux")]
mod pidfd;
#[cfg(target_os = "macos")]
#[path = "kqueue.rs"]
mod pidfd;
mod program;
pub mod stat;
mod stop_command;
mod tree;

pub use ended::Ended;
pub use exit_status::in_words;
pub use facts::{Process, is_within};
pub use kernel::{
    all, arguments, command_line, environment, executable, exit_code, group_of, pids, program,
    program_mark, ticks, user, users,
};
#[cfg(target_os = "linux")]
pub use kernel::{arguments_in, group_in, stat_in};
pub use key::ProcessKey;
pub use pidfd::PidFd;
pub use program::{OwnProgram, before_replaced, can_replace, same_file};
pub use stat::Stat;
pub use tree::{ProcessTable, ancestors, children, dead_children, descendants, living_in_group};

impl Stat {
    /// None when there is no such process, or it is hidden.
    pub fn read(pid: u32) -> Option<Self> {
        kernel::stat(pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_has_a_parent() {
        let me = Stat::read(std::process::id()).unwrap();
        assert_eq!(me.parent, nix::unistd::getppid().as_raw() as u32);
    }
}
