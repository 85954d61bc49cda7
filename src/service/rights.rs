//! Commands in messages, worded for who runs this one: root needs no sudo, and may not have it.

use nix::unistd::{Uid, User, geteuid};

/// The rights of who runs this command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rights {
    Root,
    #[default]
    User,
}

impl Rights {
    pub fn now() -> Self {
        match geteuid().is_root() {
            true => Self::Root,
            false => Self::User,
        }
    }

    /// A command that only root may run.
    pub fn as_root(self, command: &str) -> String {
        match self {
            Self::Root => command.to_owned(),
            Self::User => format!("sudo {command}"),
        }
    }

    /// The same command once more, by root; `flags` are added.
    pub fn again_as_root(self, flags: &str) -> String {
        let more = match (self, flags) {
            (Self::Root, "") => return more_rights().to_owned(),
            (Self::Root, flags) => flags.to_owned(),
            (Self::User, "") => "sudo".to_owned(),
            (Self::User, flags) => format!("sudo and {flags}"),
        };
        format!("the same command with {more}")
    }
}

/// A command that is to run as another user. Root uses what every system has that has systemd.
pub fn as_user(uid: u32, command: &str) -> String {
    let name = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => Some(user.name),
        _ => None,
    };
    let by_root = Rights::now() == Rights::Root && cfg!(target_os = "linux");
    match name {
        Some(name) if by_root => format!("runuser -u {name} -- {command}"),
        Some(name) => format!("sudo -u {name} {command}"),
        None if by_root => format!("setpriv --reuid={uid} --clear-groups {command}"),
        None => format!("sudo -u '#{uid}' {command}"),
    }
}

/// The advice where a permission is missing. Root has them all: what refuses root is something else.
pub fn more_rights() -> &'static str {
    match Rights::now() {
        Rights::Root => {
            "this is root already: look for a read-only file system, a file that is immutable (lsattr), or a capability that was dropped (capsh --print)"
        }
        Rights::User => "the same command with sudo",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_told_commands_without_sudo() {
        for (caller, as_root, again) in [
            (
                Rights::Root,
                "loginctl enable-linger ada",
                "the same command with --system",
            ),
            (
                Rights::User,
                "sudo loginctl enable-linger ada",
                "the same command with sudo and --system",
            ),
        ] {
            assert_eq!(caller.as_root("loginctl enable-linger ada"), as_root);
            assert_eq!(caller.again_as_root("--system"), again);
        }
        let as_nobody = as_user(65_534, "id");
        let is_sudo = as_nobody.starts_with("sudo ");
        assert_eq!(is_sudo, Rights::now() == Rights::User, "{as_nobody}");
    }
}
