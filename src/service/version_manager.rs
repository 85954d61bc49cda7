//! Programs that belong to a version manager, as nvm or pyenv: a path that names one version disappears
//! with it.

/// Directories of version managers in which each version has one of its own, or each session of a shell.
const VERSION_MANAGERS: [(&str, &str); 10] = [
    ("/.nvm/", "nvm"),
    ("/.fnm/", "fnm"),
    ("/fnm_multishells/", "fnm"),
    ("/fnm/node-versions/", "fnm"),
    ("/.asdf/installs/", "asdf"),
    ("/.volta/tools/", "volta"),
    ("/mise/installs/", "mise"),
    ("/.pyenv/versions/", "pyenv"),
    ("/.rbenv/versions/", "rbenv"),
    ("/.sdkman/candidates/", "sdkman"),
];

/// The version manager in whose directory of one version a path lies. None for its shims, as
/// `~/.pyenv/shims/python3`: they find the version that is wanted by themselves, and stay when one is
/// removed.
pub fn version_manager(path: &str) -> Option<&'static str> {
    let mut managers = VERSION_MANAGERS.into_iter();
    // What is current in sdkman is a link that follows the version.
    managers
        .find_map(|(part, name)| path.contains(part).then_some(name))
        .filter(|_| !path.contains("/current/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_one_version_is_told_from_a_shim() {
        for (path, expected) in [
            ("/home/a/.nvm/versions/node/v20.1.0/bin/node", Some("nvm")),
            ("/run/user/1000/fnm_multishells/1_2/bin/node", Some("fnm")),
            ("/home/a/.pyenv/versions/3.12.1/bin/python", Some("pyenv")),
            ("/home/a/.pyenv/shims/python3", None),
            ("/home/a/.rbenv/shims/ruby", None),
            ("/home/a/.asdf/shims/node", None),
            ("/home/a/.local/share/mise/shims/node", None),
            ("/home/a/.volta/bin/node", None),
            ("/home/a/.sdkman/candidates/java/current/bin/java", None),
            (
                "/home/a/.sdkman/candidates/java/21/bin/java",
                Some("sdkman"),
            ),
            ("/usr/bin/node", None),
        ] {
            assert_eq!(version_manager(path), expected, "{path}");
        }
    }
}
