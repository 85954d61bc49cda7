//! What the tests of `gatewayctl clean` share.

use serde_json::Value;

/// What became of a process: "killed PROOF" or "kept REASON".
pub fn verdict(report: &Value, pid: u32) -> String {
    let of = |list: &str, word: &str| {
        let found = report[list]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["pid"] == pid)?;
        Some(format!("{list} {}", found[word].as_str().unwrap()))
    };
    of("killed", "proof")
        .or_else(|| of("kept", "reason"))
        .unwrap_or_else(|| format!("pid {pid} is not named: {report:#}"))
}

/// A sidecar that carries out what it is told, a line each, beside the server that it is for.
pub const OBEDIENT: &str = "mkfifo orders\nnode \"$2\" \"$1\" &\nwhile true; do while read -r order; do sh -c \"$order\"; done < orders; done\n";
