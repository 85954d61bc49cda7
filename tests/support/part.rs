//! A part of a test that runs as a process of its own: an ignored test of the same program.

/// The arguments by which this test program runs nothing but `test` of `module` (`module_path!()`).
pub fn arguments(module: &str, test: &str) -> [String; 4] {
    // The harness names a test without its crate.
    let (_, module) = module.split_once("::").unwrap();
    let name = format!("{module}::{test}");
    [
        name,
        "--exact".into(),
        "--ignored".into(),
        "--nocapture".into(),
    ]
}
