//! Configuration files and `GATEWAY_*` variables.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::time::Instant;

use gateway::internals::{ConfigError, load, load_text, to_toml, whereabouts};
use gateway::programs::{Env, Overrides};

/// What is refused has a place within the file and a message in one line; what is accepted is the
/// same when it is printed and read again, has times that a clock can reach, and is the instance
/// that a look past all errors finds, too.
///
/// The input is a file; variables may follow after a zero byte, `NAME=value` a line.
pub fn toml_config(input: &[u8]) {
    let input = String::from_utf8_lossy(input);
    let (text, variables) = input.split_once('\0').unwrap_or((&input, ""));
    let variables: HashMap<&str, &str> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let variable = |name: &str| variables.get(name).map(OsString::from);
    let env = Env(&variable);
    let flags = Overrides::default();
    let path = Path::new("gateway.toml");
    match load_text(&flags, &env, path, Some(text.to_owned())) {
        Err(error) => refused(text, &error),
        Ok(loaded) => {
            let config = &loaded.config;
            let printed = to_toml(config).expect("texts have a form in TOML");
            // The name is that of the process, and not written into the configuration.
            let name = |name: &str| variable(name).filter(|_| name == "GATEWAY_INSTANCE");
            let again = load_text(&flags, &Env(&name), path, Some(printed.clone()));
            let again = again.unwrap_or_else(|error| panic!("{error}\n{printed}"));
            assert_eq!(&again.config, config, "{printed}");
            times(&printed);
            if text.len() < 4096 {
                found(&flags, &variables, text, &loaded.instance);
            }
        }
    }
}

fn refused(text: &str, error: &ConfigError) {
    let ConfigError::Invalid {
        path,
        place,
        message,
    } = error
    else {
        panic!("{error}, and no file was read");
    };
    assert!(!message.trim().is_empty() && error.to_string().contains(message.as_str()));
    if let Some(place) = place {
        assert!(path.is_some(), "a place in a file that has no name");
        let line = text
            .split('\n')
            .nth(place.line - 1)
            .expect("a line of the file");
        assert!(
            place.column >= 1 && place.column <= line.chars().count() + 1,
            "{place:?}"
        );
    }
}

/// Every time of a configuration can be added to now.
fn times(printed: &str) {
    for word in printed.split('"') {
        if let Ok(time) = word.parse::<gateway::internals::Dur>() {
            assert!(Instant::now().checked_add(time.0).is_some(), "{word}");
        }
    }
}

/// The same from a file.
fn found(flags: &Overrides, variables: &HashMap<&str, &str>, text: &str, instance: &str) {
    let dir = std::env::temp_dir();
    let file = dir.join(format!("gateway-fuzz-{}.toml", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let variable = |name: &str| match name {
        "GATEWAY_CONFIG" => Some(file.clone().into_os_string()),
        name => variables.get(name).map(OsString::from),
    };
    let env = Env(&variable);
    let loaded = load(flags, &env).expect("the text is good");
    let found = whereabouts(flags, &env);
    assert_eq!(
        (found.instance.as_str(), loaded.instance.as_str()),
        (instance, instance)
    );
    assert_eq!(found.state_dir, loaded.config.gateway.state_dir);
    assert_eq!(found.path, file);
}
