//! For tests: a configuration file.

use super::Overrides;

/// A configuration file, and flags that lead to it and to a state directory beside it.
pub fn setting(text: &str) -> (tempfile::TempDir, Overrides) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, text).unwrap();
    let flags = Overrides {
        config: Some(file),
        state_dir: Some(dir.path().to_owned()),
        ..Overrides::default()
    };
    (dir, flags)
}
