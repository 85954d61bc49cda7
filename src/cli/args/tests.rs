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
        "gateway --listen 8080 --exclusive -- x --listen",
        "gateway run --listen 8080 --exclusive -- x --listen",
    ] {
        let flags = GatewayCli::try_parse_from(line.split(' ')).unwrap();
        let flags = flags.overrides();
        assert_eq!(flags.listen[0].port(), Some(8080));
        assert!(flags.exclusive);
        assert_eq!(flags.command, ["x", "--listen"]);
    }
    let line = "gateway check --start --config g.toml".split(' ');
    assert!(matches!(
        GatewayCli::try_parse_from(line).unwrap().command,
        Some(GatewayCommand::Check(CheckArgs { start: true, .. }))
    ));
}

#[test]
fn a_command_without_the_dashes_is_told_how() {
    for line in ["gateway run node server.js", "gateway node server.js"] {
        let error = GatewayCli::read(line.split(' ')).unwrap_err().to_string();
        assert!(error.contains("gateway run -- node"), "{error}");
    }
    let error = |line: &str| CtlCli::read(line.split(' ')).unwrap_err().to_string();
    let inhibit = error("gatewayctl inhibit --why backup ./backup.sh");
    assert!(inhibit.contains("inhibit … -- ./backup.sh"), "{inhibit}");
    let status = error("gatewayctl status please");
    assert!(!status.contains(" -- "), "{status}");
}

#[test]
fn flags_of_gatewayctl() {
    let line = "gatewayctl restart --wait forever --json --instance a";
    let cli = CtlCli::try_parse_from(line.split(' ')).unwrap();
    assert!(cli.global.json && cli.global.instance.as_deref() == Some("a"));
    assert!(matches!(
        cli.command,
        CtlCommand::Restart(RestartArgs {
            wait: Some(Wait::Forever),
            ..
        })
    ));
    let long = format!("gatewayctl restart --reason {}", "x".repeat(201));
    for wrong in [
        "gatewayctl restart --force --wait 1s",
        "gatewayctl restart --wait soon",
        "gatewayctl wait --ready --stopped",
        "gatewayctl status --user --system",
        "gatewayctl inhibit -- true",
        "gatewayctl inhibit --why backup",
        "gatewayctl inhibit --why backup --ttl 0s -- true",
        "gatewayctl",
        &long,
    ] {
        let error = CtlCli::try_parse_from(wrong.split(' ')).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong}");
    }
}
