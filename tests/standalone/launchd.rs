//! What install would write for launchd, read by Python's plistlib as launchd would read it.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::servers;
use crate::support::site::all_of;
use serde_json::Value;

fn ctl(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    command
        .args(args)
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", all_of(output)))
}

/// The text of the file with this ending.
fn file<'a>(report: &'a Value, ending: &str) -> &'a str {
    let files = report["files"].as_array().unwrap();
    let found = files
        .iter()
        .find(|file| file["path"].as_str().unwrap().ends_with(ending));
    found.unwrap_or_else(|| panic!("{ending} in {report}"))["text"]
        .as_str()
        .unwrap()
}

/// A property list as Python reads it.
fn read(text: &str) -> Value {
    use std::io::Write;
    let script = "import json, plistlib, sys; print(json.dumps(plistlib.loads(sys.stdin.buffer.read(), fmt=plistlib.FMT_XML)))";
    let mut python = Command::new("python3")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    python
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_job_is_shown_and_plistlib_reads_it() {
    if !servers::have("python3") {
        return crate::support::skip::because("python3 is missing");
    }
    let home = tempfile::tempdir().unwrap();
    let home = home.path().join("Ann & <Bob>'s \"home\" größe");
    std::fs::create_dir(&home).unwrap();
    let show = ["install", "--user", "--for", "launchd", "--dry-run"];
    let more = [
        "--json",
        "--now",
        "--instance",
        "web.1",
        "--set",
        "COLOR=a <b> & c",
        "--set",
        "API_TOKEN=canary-4711",
        "--",
        "sh",
        "-c",
        "x {port}",
    ];
    let report = json(&ctl(&home, &[&show[..], &more].concat()));
    assert_eq!(
        (&report["ok"], &report["unit"], &report["outcome"]),
        (
            &true.into(),
            &"org.gatewayctl.web.1".into(),
            &"dry run".into()
        )
    );
    let path = home.join("Library/LaunchAgents/org.gatewayctl.web.1.plist");
    assert_eq!(report["unitFile"], path.display().to_string());
    assert!(!report.to_string().contains("canary"), "{report}");

    let job = read(file(&report, ".plist"));
    assert_eq!(job["Label"], "org.gatewayctl.web.1");
    let program = Path::new(env!("CARGO_BIN_EXE_gateway"))
        .display()
        .to_string();
    assert_eq!(
        job["ProgramArguments"],
        serde_json::json!([program, "run", "--instance", "web.1"]),
        "nothing of the command stands in it"
    );
    for (key, value) in [
        ("RunAtLoad", Value::from(true)),
        ("KeepAlive", true.into()),
        ("ThrottleInterval", 1.into()),
        ("ExitTimeOut", 30.into()),
        ("ProcessType", "Interactive".into()),
        ("Umask", 0o077.into()),
        ("WorkingDirectory", home.display().to_string().into()),
        (
            "StandardErrorPath",
            home.join("Library/Logs/gateway/web.1.log")
                .display()
                .to_string()
                .into(),
        ),
        (
            "EnvironmentVariables",
            serde_json::json!({
                "GATEWAY_VARIABLES_FILE": home.join(".config/gateway/web.1.secrets.env"),
                "GATEWAY_CONFIG": home.join(".config/gateway/web.1.toml"),
                "GATEWAY_STATE_DIR": home.join(".local/state/gateway/web.1"),
            }),
        ),
        (
            "Sockets",
            serde_json::json!({"gateway": [{
                "SockType": "stream",
                "SockFamily": "IPv4",
                "SockNodeName": "127.0.0.1",
                "SockServiceName": "18789",
            }]}),
        ),
        ("UserName", Value::Null),
        ("EnableTransactions", Value::Null),
        ("AbandonProcessGroup", Value::Null),
    ] {
        assert_eq!(job[key], value, "{key}");
    }
    let config: toml::Table = file(&report, "web.1.toml").parse().unwrap();
    let main = &config["sidecar"]["main"];
    assert_eq!(main["cwd"].as_str(), home.to_str());
    assert!(main["env"].get("COLOR").is_none(), "{main}");
    assert_eq!(main["command"][2].as_str(), Some("x {port}"));
    let actions = report["actions"].to_string();
    assert!(
        actions.contains("load org.gatewayctl.web.1 into gui/"),
        "{actions}"
    );
    assert_eq!(
        std::fs::read_dir(&home).unwrap().count(),
        0,
        "nothing was written"
    );
}

#[test]
fn a_daemon_has_a_user_and_what_launchd_cannot_do_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let command = ["--", "sh", "-c", "x {port}"];
    let show = |flags: &[&str]| {
        ctl(
            home,
            &[&["install", "--for", "launchd"], flags, &command].concat(),
        )
    };
    let output = show(&[
        "--system",
        "--dry-run",
        "--json",
        "--run-as",
        "_gateway",
        "--instance",
        "launchd-test",
    ]);
    let report = json(&output);
    assert_eq!(
        report["unitFile"],
        "/Library/LaunchDaemons/org.gatewayctl.launchd-test.plist"
    );
    if servers::have("python3") {
        let job = read(file(&report, ".plist"));
        assert_eq!(job["UserName"], "_gateway");
        assert_eq!(
            job["EnvironmentVariables"]["GATEWAY_CONFIG"],
            "/etc/gateway/launchd-test.toml"
        );
        assert_eq!(
            job["StandardErrorPath"],
            "/Library/Logs/gateway/launchd-test/gateway.log"
        );
    }
    let diff = show(&["--user", "--diff"]);
    assert!(
        diff.status.success() && all_of(&diff).contains("+\t<key>KeepAlive</key>"),
        "{}",
        all_of(&diff)
    );
    // The gateway reads it, whoever starts that.
    let empty = tempfile::NamedTempFile::new().unwrap();
    let path = empty.path().to_str().unwrap();
    let variables = all_of(&show(&["--user", "--dry-run", "--env-file", path]));
    let line = format!("env_file = \"{path}\"");
    assert!(variables.contains(&line), "{variables}");
    for (flags, part) in [
        (&["--user"][..], "there is no launchd on this machine"),
        (&["--user", "--now"], "there is no launchd on this machine"),
        (
            &["--user", "--dry-run", "--sandbox", "strict"],
            "--sandbox is for systemd",
        ),
        (
            &["--user", "--dry-run", "--run-as", "root"],
            "--run-as is for the machine's services",
        ),
        (&["--system", "--dry-run"], "a daemon needs a user"),
        (
            &["--user", "--dry-run", "--set", "API_TOKEN=a\u{1b}b"],
            "--set API_TOKEN",
        ),
    ] {
        let output = show(flags);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{flags:?}: {}",
            all_of(&output)
        );
        assert!(
            all_of(&output).contains(part),
            "{flags:?}: {}",
            all_of(&output)
        );
    }
    let unknown = ctl(home, &["install", "--for", "upstart", "--dry-run"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", all_of(&unknown));
    assert_eq!(
        std::fs::read_dir(home).unwrap().count(),
        0,
        "nothing was written"
    );
}
