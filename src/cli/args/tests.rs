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
fn what_hands_type_is_understood_by_run_and_install() {
    let options = "-p 8080 --app-port 3000 --cwd /srv --name web -e A=1 --env B=x=y -- x";
    let line = format!("gateway run {options}");
    let flags = GatewayCli::try_parse_from(line.split(' '))
        .unwrap()
        .overrides();
    assert_eq!(flags.listen[0].port(), Some(8080));
    assert_eq!(flags.port, Some(3000));
    assert_eq!(flags.cwd.as_deref(), Some("/srv".as_ref()));
    assert_eq!(flags.instance.as_deref(), Some("web"));
    let env = [
        ("A".to_owned(), "1".to_owned()),
        ("B".to_owned(), "x=y".to_owned()),
    ];
    assert_eq!(flags.env, env);

    let line = format!("gatewayctl install {options}");
    let cli = CtlCli::try_parse_from(line.split(' ')).unwrap();
    assert_eq!(cli.global.instance.as_deref(), Some("web"));
    let CtlCommand::Install(install) = cli.command else {
        panic!("{cli:?}");
    };
    assert_eq!(install.server.listen[0].port(), Some(8080));
    assert_eq!(install.server.port, Some(3000));
    assert_eq!(install.set, env);

    let refused = |program: &str, options: &str| {
        let line = format!("{program} {options} -- x");
        match program {
            "gateway run" => GatewayCli::read(line.split(' ')).unwrap_err(),
            _ => CtlCli::read(line.split(' ')).unwrap_err(),
        }
    };
    for program in ["gateway run", "gatewayctl install"] {
        let wrong_port = refused(program, "--port 8080");
        let text = wrong_port.to_string();
        assert_eq!(wrong_port.exit_code(), 2);
        assert!(text.contains("clients connect to --listen 8080"), "{text}");
        assert!(text.contains("--app-port 8080"), "{text}");
        let text = refused(program, "-e COLOR").to_string();
        assert!(text.contains("a name and a value"), "{text}");
    }
}

#[test]
fn a_command_without_the_dashes_is_told_how() {
    for line in ["gateway run node server.js", "gateway node server.js"] {
        let error = GatewayCli::read(line.split(' ')).unwrap_err().to_string();
        assert!(error.contains("gateway run -- node"), "{error}");
    }
    for command in ["status", "restart", "install"] {
        let line = format!("gateway {command}");
        let error = GatewayCli::read(line.split(' ')).unwrap_err().to_string();
        assert!(
            error.contains(&format!("did you mean: gatewayctl {command}")),
            "{error}"
        );
    }
    let error = |line: &str| CtlCli::read(line.split(' ')).unwrap_err().to_string();
    let inhibit = error("gatewayctl inhibit --why backup ./backup.sh");
    assert!(inhibit.contains("inhibit … -- ./backup.sh"), "{inhibit}");
    let status = error("gatewayctl status please");
    assert!(!status.contains(" -- "), "{status}");
    assert!(
        status.contains("gatewayctl status --instance please"),
        "{status}"
    );
    let restart = error("gatewayctl --json restart web");
    for words in ["restart --instance web", "no command restarts web alone"] {
        assert!(restart.contains(words), "{restart}");
    }
    let logs = error("gatewayctl logs web");
    assert!(logs.contains("logs --sidecar web"), "{logs}");
}

#[test]
fn the_words_of_other_tools_are_answered_with_ours() {
    let error = |line: &str| CtlCli::read(line.split(' ')).unwrap_err();
    for (line, meant) in [
        ("ps", "gatewayctl list"),
        ("ls", "gatewayctl list"),
        ("remove", "gatewayctl uninstall"),
        ("rm web", "gatewayctl uninstall"),
        ("delete", "gatewayctl stop"),
        ("kill", "gatewayctl stop"),
        ("monit", "gatewayctl status --watch"),
        ("run -- node app.js", "gateway run -- COMMAND"),
        ("up", "gatewayctl start"),
        ("describe", "gatewayctl status"),
        ("validate", "gatewayctl config check"),
        (
            "config check /srv/web.toml",
            "gatewayctl config check --config /srv/web.toml",
        ),
        (
            "config show web.toml",
            "gatewayctl config show --config web.toml",
        ),
        ("start -- node app.js", "gateway run -- node …"),
        ("start -- node app.js", "gatewayctl install --now -- node …"),
        ("start web", "gatewayctl start --instance web"),
        ("logs --since 1h", "journalctl -u UNIT --since 1h"),
        ("logs --since=1h", "journalctl -u UNIT --since 1h"),
        ("restrat", "'restart'"),
    ] {
        let error = error(&format!("gatewayctl {line}"));
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2, "{line}: {text}");
        assert!(text.contains(meant), "{line}: {text}");
        assert!(
            !text.contains("similar") || line == "restrat",
            "{line}: {text}"
        );
        assert!(
            super::meant(&error).is_some_and(|said| said.contains(meant)),
            "{line}"
        );
    }
    let cli = CtlCli::read("gatewayctl logs --tail 5".split(' ')).unwrap();
    assert!(matches!(
        cli.command,
        CtlCommand::Logs(LogsArgs { lines: 5, .. })
    ));
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
