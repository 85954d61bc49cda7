use std::ffi::OsString;

use super::*;
use crate::config::fixture::setting;
use crate::config::{Dur, Throttle};

fn none(_: &str) -> Option<OsString> {
    None
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    let refusal = |text: &str, path| parse(text, path).unwrap_err().to_string();
    assert_eq!(
        refusal(
            "[gateway]\nvia = true\n lisen = []\n",
            Some(Path::new("g.toml"))
        ),
        "g.toml:3:2: unknown key `lisen` (did you mean `listen`?)"
    );
    let text = "[sidecar.web]\ncommand = [\"x\"]\nready = \"tpc\"\n";
    let expected = "unknown value `tpc` (did you mean `tcp`?)";
    assert_eq!(refusal(text, None), expected);
}

#[test]
fn flags_overrule_variables_and_variables_the_file() {
    let (_dir, mut flags) = setting("[gateway]\nlisten = [\"1001\"]\n[restart]\ndrain = \"1s\"\n");
    let port = |loaded: &Loaded| loaded.config.gateway.listen[0].port();
    assert_eq!(port(&load(&flags, &Env(&none)).unwrap()), Some(1001));
    let env = |name: &str| match name {
        "GATEWAY_LISTEN" => Some("1002, unix:/x".into()),
        "GATEWAY_RESTART_DRAIN" => Some("2s".into()),
        _ => None,
    };
    let loaded = load(&flags, &Env(&env)).unwrap();
    assert_eq!(loaded.config.gateway.listen.len(), 2);
    assert_eq!(loaded.config.restart.drain, Dur::secs(2));
    assert_eq!(loaded.instance, "gateway-1002");
    flags.listen = vec!["1003".parse().unwrap()];
    assert_eq!(port(&load(&flags, &Env(&env)).unwrap()), Some(1003));
}

#[test]
fn every_key_of_the_throttle_has_its_variable() {
    let value = |name: &str| match name {
        "GATEWAY_RECOVERY_THROTTLE_WINDOW" => Some("1s".into()),
        "GATEWAY_RECOVERY_THROTTLE_THRESHOLD" => Some("2".into()),
        "GATEWAY_RECOVERY_THROTTLE_BASE" => Some("3s".into()),
        "GATEWAY_RECOVERY_THROTTLE_MAX" => Some("4s".into()),
        "GATEWAY_RECOVERY_THROTTLE_STABLE" => Some("5s".into()),
        "GATEWAY_RESTART_LAUNCHD_EXIT_DELAY" => Some("6s".into()),
        "CONFIGURATION_DIRECTORY" => Some("/nonexistent".into()),
        _ => None,
    };
    let config = load(&Overrides::default(), &Env(&value)).unwrap().config;
    let expected = Throttle {
        window: Dur::secs(1),
        threshold: 2,
        base: Dur::secs(3),
        max: Dur::secs(4),
        stable: Dur::secs(5),
    };
    assert_eq!(config.recovery.throttle, expected);
    assert_eq!(config.restart.launchd_exit_delay, Dur::secs(6));
    let bad = |name: &str| (name == "GATEWAY_RECOVERY_THROTTLE_THRESHOLD").then(|| "many".into());
    let error = load(&Overrides::default(), &Env(&bad)).unwrap_err();
    assert!(error.to_string().contains("`many` is not a number"));
}

#[test]
fn a_named_file_that_is_missing_is_an_error_and_a_default_one_is_not() {
    let flags = Overrides {
        config: Some("/nonexistent/x.toml".into()),
        ..Overrides::default()
    };
    assert!(matches!(
        load(&flags, &Env(&none)),
        Err(ConfigError::Unreadable { .. })
    ));
    let env = |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| "/nonexistent".into());
    assert_eq!(load(&Overrides::default(), &Env(&env)).unwrap().path, None);
}

#[test]
fn of_a_configuration_that_is_not_valid_the_state_is_found_all_the_same() {
    let (_dir, flags) = setting("");
    let flags = Overrides {
        state_dir: None,
        ..flags
    };
    let file = flags.config.clone().unwrap();
    let of = |text: &str| {
        std::fs::write(&file, text).unwrap();
        whereabouts(&flags, &Env(&none))
    };
    let found = of("[gateway]\ninstance = \"a\"\nstate_dir = \"/s\"\nlisen = 1\n");
    let expected = Whereabouts {
        path: file.clone(),
        instance: "a".into(),
        state_dir: Some("/s".into()),
    };
    assert_eq!(found, expected);
    assert_eq!(
        of("[gateway]\nlisten = [\"1001\"]\nvia = 3\n").instance,
        "gateway-1001"
    );
    for text in [
        "[gateway",
        "gateway = 3",
        "[gateway]\ninstance = \"../x\"\nlisten = {}",
        "",
    ] {
        assert_eq!(of(text).instance, DEFAULT_INSTANCE, "{text}");
    }
    std::fs::remove_file(&file).unwrap();
    let env = |name: &str| (name == "GATEWAY_LISTEN").then(|| "1002, 1003".into());
    assert_eq!(whereabouts(&flags, &Env(&env)).instance, "gateway-1002");
}

#[test]
fn hostile_instance_names_are_refused() {
    for name in ["", "../x", "a/b", "-x", ".hidden", "a b", "ü"] {
        let flags = Overrides {
            instance: Some(name.into()),
            ..Overrides::default()
        };
        let env = |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| "/nonexistent".into());
        assert!(load(&flags, &Env(&env)).is_err(), "{name}");
    }
}
