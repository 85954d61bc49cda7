//! The command by which somebody ends a process that is none of ours.

use nix::unistd::geteuid;

use super::Process;
use crate::text::shell;

impl Process {
    /// The command that ends it: its service, where it belongs to one, since a service manager would start
    /// another.
    pub fn stop_command(&self) -> String {
        let me = geteuid();
        let own = me.as_raw() == self.uid;
        let as_root = |command: String| match me.is_root() {
            true => command,
            false => format!("sudo {command}"),
        };
        match self.unit_to_stop() {
            Some((unit, false)) => as_root(format!("systemctl stop {}", shell::word(unit))),
            Some((unit, true)) if own => format!("systemctl --user stop {}", shell::word(unit)),
            Some((unit, true)) => as_root(format!(
                "systemctl --user --machine={}@ stop {}",
                self.uid,
                shell::word(unit)
            )),
            // Docker listens in the place of a container, which is not its child.
            None if self.name == "docker-proxy" => as_root("docker ps".to_owned()),
            None if own => format!("kill {}", self.pid),
            None => as_root(format!("kill {}", self.pid)),
        }
    }

    /// The unit that ends it, and whether it is one of a user's manager. Of several services, one in the
    /// other, the outermost one is systemd's: what is within it, it named itself.
    fn unit_to_stop(&self) -> Option<(&str, bool)> {
        let innermost = self.unit()?;
        let mut parts = self.group.split('/');
        match parts.find(|part| part.ends_with(".service"))? {
            outermost if outermost.starts_with("user@") => Some(innermost),
            outermost => Some((outermost, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ended_by_who_started_it() {
        let me = Process::read(std::process::id()).unwrap();
        let of = |group: &str, uid: u32, name: &str| {
            let process = Process {
                group: group.into(),
                uid,
                name: name.into(),
                ..me.clone()
            };
            process.stop_command().replace("sudo ", "")
        };
        let (mine, other) = (me.uid, me.uid + 4711);
        let pid = me.pid;
        for (group, uid, name, expected) in [
            (
                "/system.slice/nginx.service",
                mine,
                "nginx",
                "systemctl stop nginx.service".to_owned(),
            ),
            (
                "/system.slice/app.service/ssh.service",
                other,
                "x",
                "systemctl stop app.service".to_owned(),
            ),
            (
                "/user.slice/user-7.slice/user@7.service/app.slice/a.service",
                mine,
                "x",
                "systemctl --user stop a.service".to_owned(),
            ),
            (
                "/user.slice/user-7.slice/user@7.service/app.slice/a b.service",
                other,
                "x",
                format!("systemctl --user --machine={other}@ stop 'a b.service'"),
            ),
            (
                "/user.slice/user-7.slice/session-1.scope",
                mine,
                "x",
                format!("kill {pid}"),
            ),
            ("/", other, "x", format!("kill {pid}")),
            ("/", other, "docker-proxy", "docker ps".to_owned()),
        ] {
            assert_eq!(of(group, uid, name), expected, "{group}");
        }
    }
}
