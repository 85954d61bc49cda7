use clap::{CommandFactory, Parser};

use super::gateway::CheckArgs;
use super::*;

#[test]
fn the_definitions_hold() {
    GatewayCli::command().debug_assert();
    CtlCli::command().debug_assert();
}

#[test]
fn a_bare_gateway_runs() {
    for line in [
        &[
            "gateway",
            "--listen",
            "8080",
            "--exclusive",
            "--",
            "x",
            "--listen",
        ][..],
        &[
            "gateway",
            "run",
            "--listen",
            "8080",
            "--exclusive",
            "--",
            "x",
            "--listen",
        ],
    ] {
        let flags = GatewayCli::try_parse_from(line).unwrap().overrides();
        assert_eq!(
            (flags.listen[0].port(), flags.exclusive),
            (Some(8080), true)
        );
        assert_eq!(flags.command, ["x", "--listen"]);
    }
    let cli =
        GatewayCli::try_parse_from(["gateway", "check", "--start", "--config", "g.toml"]).unwrap();
    assert!(matches!(
        cli.command,
        Some(GatewayCommand::Check(CheckArgs { start: true, .. }))
    ));
}

#[test]
fn a_command_without_the_dashes_is_told_how() {
    for line in [
        &["gateway", "run", "node", "server.js"][..],
        &["gateway", "node", "server.js"],
    ] {
        let error = GatewayCli::read(line).unwrap_err().to_string();
        assert!(error.contains("gateway run -- node"), "{error}");
    }
    let error = CtlCli::read(["gatewayctl", "inhibit", "--why", "backup", "./backup.sh"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("inhibit … -- ./backup.sh"), "{error}");
    let error = CtlCli::read(["gatewayctl", "status", "please"])
        .unwrap_err()
        .to_string();
    assert!(!error.contains(" -- "), "{error}");
}

#[test]
fn flags_of_gatewayctl() {
    let cli = CtlCli::try_parse_from([
        "gatewayctl",
        "restart",
        "--wait",
        "forever",
        "--json",
        "--instance",
        "a",
    ])
    .unwrap();
    assert!(cli.global.json && cli.global.instance.as_deref() == Some("a"));
    assert!(matches!(
        cli.command,
        CtlCommand::Restart(RestartArgs {
            wait: Some(Wait::Forever),
            ..
        })
    ));
    for wrong in [
        &["gatewayctl", "restart", "--force", "--wait", "1s"][..],
        &["gatewayctl", "restart", "--wait", "soon"],
        &["gatewayctl", "wait", "--ready", "--stopped"],
        &["gatewayctl", "status", "--user", "--system"],
        &["gatewayctl", "inhibit", "--", "true"],
        &["gatewayctl", "inhibit", "--why", "backup"],
        &[
            "gatewayctl",
            "inhibit",
            "--why",
            "backup",
            "--ttl",
            "0s",
            "--",
            "true",
        ],
        &["gatewayctl"],
    ] {
        assert_eq!(
            CtlCli::try_parse_from(wrong).unwrap_err().exit_code(),
            2,
            "{wrong:?}"
        );
    }
    let long = "x".repeat(201);
    assert!(CtlCli::try_parse_from(["gatewayctl", "restart", "--reason", &long]).is_err());
}
