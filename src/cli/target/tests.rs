use std::ffi::OsString;
use std::os::unix::net::UnixListener;

use super::*;

/// A machine with the gateways `alive`, and the socket of a dead one.
fn machine(alive: &[&str]) -> (tempfile::TempDir, Vec<UnixListener>) {
    let dir = tempfile::tempdir().unwrap();
    let socket = |name: &str| {
        let dir = dir.path().join("gateway").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        UnixListener::bind(dir.join("control.sock")).unwrap()
    };
    drop(socket("dead"));
    let listeners = alive.iter().map(|name| socket(name)).collect();
    (dir, listeners)
}

fn find(dir: &Path, global: Global) -> Result<Target, CliError> {
    let env = |name: &str| -> Option<OsString> {
        matches!(name, "XDG_RUNTIME_DIR" | "HOME").then(|| dir.into())
    };
    let user = Global {
        user: true,
        ..global
    };
    Target::find(&user, &Env(&env))
}

fn instance(name: &str) -> Global {
    Global {
        instance: Some(name.into()),
        ..Global::default()
    }
}

fn config(file: &Path) -> Global {
    Global {
        config: Some(file.to_owned()),
        ..Global::default()
    }
}

#[test]
fn the_only_one_is_meant_without_a_name_and_several_are_listed() {
    let (dir, _one) = machine(&["a"]);
    assert_eq!(find(dir.path(), Global::default()).unwrap().instance, "a");
    let (dir, _two) = machine(&["a", "b"]);
    let error = find(dir.path(), Global::default()).unwrap_err();
    assert_eq!(error.exit, Exit::Usage);
    assert!(
        matches!(&*error.choices, [a, b] if a.instance == "a" && b.instance == "b"),
        "{error:?}"
    );
    assert_eq!(find(dir.path(), instance("b")).unwrap().instance, "b");
}

#[test]
fn none_is_not_running_with_the_next_command() {
    let (dir, _none) = machine(&[]);
    for global in [Global::default(), instance("dead")] {
        let error = find(dir.path(), global).unwrap_err();
        assert_eq!(error.exit, Exit::NotRunning);
        assert!(error.help.unwrap().contains("gateway run"));
    }
}

#[test]
fn a_state_directory_names_it_by_path_from_flag_or_configuration() {
    let (dir, _none) = machine(&["a", "b"]);
    let state = dir.path().join("state");
    std::fs::create_dir_all(state.join("run")).unwrap();
    let by_flag = Global {
        state_dir: Some(state.clone()),
        ..Global::default()
    };
    assert_eq!(
        find(dir.path(), by_flag.clone()).unwrap_err().exit,
        Exit::NotRunning
    );
    let _listener = UnixListener::bind(state.join("run/control.sock")).unwrap();
    assert_eq!(
        find(dir.path(), by_flag).unwrap().control,
        state.join("run/control.sock")
    );
    let file = dir.path().join("g.toml");
    std::fs::write(&file, format!("[gateway]\nstate_dir = {state:?}\n")).unwrap();
    assert_eq!(
        find(dir.path(), config(&file)).unwrap().control,
        state.join("run/control.sock")
    );
}

#[test]
fn a_variable_names_a_gateway_as_its_flag_does() {
    let (dir, _two) = machine(&["a", "b"]);
    let file = dir.path().join("g.toml");
    std::fs::write(&file, "[gateway]\ninstance = \"b\"\n").unwrap();
    let state = dir.path().join("state");
    let global = Global {
        user: true,
        ..Global::default()
    };
    let given = |variable: &'static str, path: &Path| {
        let (home, path) = (dir.path().to_owned(), path.to_owned());
        move |name: &str| -> Option<OsString> {
            match name {
                "XDG_RUNTIME_DIR" | "HOME" => Some(home.clone().into()),
                _ => (name == variable).then(|| path.clone().into()),
            }
        }
    };
    let env = given("GATEWAY_CONFIG", &file);
    let env = Env(&env);
    assert_eq!(named_by_path(&global, &env), Some("$GATEWAY_CONFIG"));
    assert_eq!(Target::find(&global, &env).unwrap().instance, "b");
    assert_eq!(wanted_name(&global, &env).as_deref(), Some("b"));

    let env = given("GATEWAY_STATE_DIR", &state);
    let env = Env(&env);
    assert_eq!(named_by_path(&global, &env), Some("$GATEWAY_STATE_DIR"));
    let error = Target::find(&global, &env).unwrap_err();
    assert_eq!(error.exit, Exit::NotRunning);
    assert!(error.message.contains(state.to_str().unwrap()), "{error:?}");

    let env = given("NOTHING", &state);
    assert_eq!(named_by_path(&global, &Env(&env)), None);
}

#[test]
fn a_configuration_that_is_named_says_which_instance_it_is() {
    let (dir, _two) = machine(&["a", "gateway-8099"]);
    let file = dir.path().join("g.toml");
    for (text, instance) in [
        ("[gateway]\ninstance = \"a\"\n", "a"),
        ("[gateway]\nlisten = [\"8099\"]\n", "gateway-8099"),
    ] {
        std::fs::write(&file, text).unwrap();
        let target = find(dir.path(), config(&file)).unwrap();
        assert_eq!(
            (target.instance.as_str(), target.flags),
            (instance, format!(" --instance {instance}"))
        );
    }
}

/// `gatewayctl stop --config FILE` stopped the gateway with the default name: FILE gave its own none.
#[test]
fn a_configuration_names_no_gateway_that_has_another() {
    let (dir, _one) = machine(&["gateway"]);
    let (file, other) = (dir.path().join("g.toml"), dir.path().join("other.toml"));
    std::fs::write(&file, "[restart]\n").unwrap();
    std::fs::write(&other, "").unwrap();
    let target = find(dir.path(), config(&file)).unwrap();
    let judge = |own: Option<&Path>| {
        let wanted = target.config.as_deref().expect("the file alone names it");
        target.has_config(wanted, own)
    };
    assert_eq!(judge(Some(&file)), Ok(()));
    for (own, words) in [
        (None, "no configuration file"),
        (Some(&*other), "other.toml"),
    ] {
        let error = judge(own).unwrap_err();
        assert_eq!(error.exit, Exit::Usage);
        assert!(error.message.contains(words), "{error:?}");
    }
    let by_name = Global {
        instance: Some("gateway".to_owned()),
        ..config(&file)
    };
    assert_eq!(find(dir.path(), by_name).unwrap().config, None);
}
