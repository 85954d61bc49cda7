//! What a parser's error about a configuration means to who wrote it: the key that was meant, or the table
//! that it belongs to.

use schemars::{JsonSchema, Schema, schema_for};
use toml::{Table, Value};

use super::model::{
    GatewaySection, LimitsSection, RecoverySection, RestartSection, RouteSpec, Throttle,
};
use super::position::{Position, locate, nearest};
use super::sidecar::{Live, SidecarSpec};

/// The place and the words of an error.
pub(super) fn told(error: &toml::de::Error, text: &str) -> (Option<Position>, String) {
    if let Some((keys, message)) = wrong_shape(text) {
        return (locate(text, &keys), message.to_owned());
    }
    let Some(offset) = error.span().map(|span| span.start) else {
        return (None, explain(error.message(), false));
    };
    let message = list_wanted(error, text, offset).unwrap_or_else(|| {
        let before = text.get(..offset).unwrap_or_default();
        explain(error.message(), before.ends_with('['))
    });
    (Some(Position::of(text, offset)), message)
}

/// Turns serde's list of expected fields into the one that was most likely meant; `heads` says whether the
/// unknown one is the name of a table.
fn explain(message: &str, heads: bool) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(unknown), true) = (quoted.next(), message.starts_with("unknown ")) else {
        return without_value(message.trim()).replace('\n', " ");
    };
    let known: Vec<&str> = quoted.collect();
    let near = nearest(unknown, known.iter().copied());
    let near = near.map(|near| format!("did you mean `{near}`?"));
    let of_here = || format!("known here: {}", known.join(", "));
    if !message.starts_with("unknown field") {
        let help = near.unwrap_or_else(of_here);
        return format!("unknown value `{unknown}` ({help})");
    }
    let help = (!heads).then(|| of_another_table(unknown)).flatten();
    let help = help.or(near).or_else(|| match heads {
        true => Some(format!("a server is [sidecar.{unknown}]; {}", of_here())),
        false => near_in_another_table(unknown),
    });
    format!("unknown key `{unknown}` ({})", help.unwrap_or_else(of_here))
}

/// The tables, as they are written, with what they may hold.
fn tables() -> [(&'static str, Schema); 8] {
    fn keys<T: JsonSchema>() -> Schema {
        schema_for!(T)
    }
    [
        ("[gateway]", keys::<GatewaySection>()),
        ("[restart]", keys::<RestartSection>()),
        ("[recovery]", keys::<RecoverySection>()),
        ("[recovery.throttle]", keys::<Throttle>()),
        ("[limits]", keys::<LimitsSection>()),
        ("[sidecar.NAME]", keys::<SidecarSpec>()),
        ("[sidecar.NAME.live]", keys::<Live>()),
        ("[[route]]", keys::<RouteSpec>()),
    ]
}

fn keys_of(schema: &Schema) -> impl Iterator<Item = &str> {
    let properties = schema.get("properties").and_then(|all| all.as_object());
    properties
        .into_iter()
        .flat_map(|all| all.keys().map(String::as_str))
}

/// Where a key belongs that is written elsewhere.
fn of_another_table(key: &str) -> Option<String> {
    // What other programs call the address; `port` is one of ours, of another meaning.
    match key {
        "port" => {
            return Some(
                "clients connect to `listen` in [gateway]; `port` in [sidecar.NAME] is where a server always listens"
                    .to_owned(),
            );
        }
        "address" | "addr" | "bind" | "host" | "hostname" => {
            return Some(
                "the address for clients is `listen` in [gateway]; `host` in [[route]] is that of a request"
                    .to_owned(),
            );
        }
        _ => {}
    }
    let tables = tables();
    let homes = tables
        .iter()
        .filter(|(_, schema)| keys_of(schema).any(|known| known == key));
    let homes: Vec<&str> = homes.map(|(table, _)| *table).collect();
    (!homes.is_empty()).then(|| format!("it belongs to {}", homes.join(" or ")))
}

/// A key of another table that was most likely meant.
fn near_in_another_table(key: &str) -> Option<String> {
    let tables = tables();
    let all = tables.iter().flat_map(|(_, schema)| keys_of(schema));
    let near = nearest(key, all)?;
    let home = of_another_table(near)?;
    Some(format!("did you mean `{near}`? {home}"))
}

/// A table that is written as something else, for which the parser's words help nobody.
fn wrong_shape(text: &str) -> Option<(Vec<String>, &'static str)> {
    let table: Table = text.parse().ok()?;
    if let Some(Value::Table(_)) = table.get("route") {
        return Some((
            vec!["route".to_owned()],
            "a route is [[route]], with two brackets: there may be several",
        ));
    }
    match table.get("sidecar")? {
        Value::Table(sidecars) => {
            let (key, _) = sidecars.iter().find(|(_, value)| !value.is_table())?;
            let keys = vec!["sidecar".to_owned(), key.clone()];
            Some((
                keys,
                "a server has a name: [sidecar.main] instead of [sidecar]",
            ))
        }
        _ => Some((
            vec!["sidecar".to_owned()],
            "a server has a name: [sidecar.main], one table for each",
        )),
    }
}

/// The message for a text where a list is wanted, as in `command = "node server.js"`, without the
/// text: it may hold a secret.
fn list_wanted(error: &toml::de::Error, text: &str, offset: usize) -> Option<String> {
    let message = error.message();
    if !message.starts_with("invalid type: string ") || !message.ends_with("expected a sequence") {
        return None;
    }
    let line = text.get(..offset)?.rsplit('\n').next()?;
    let key = line.trim_end().strip_suffix('=')?.trim();
    let example = match key {
        "command" | "prepare" => ": [\"node\", \"server.js\"]",
        "listen" => ": [\"127.0.0.1:18789\"]",
        _ => "",
    };
    Some(format!("`{key}` must be a list{example}"))
}

/// Removes a text of the wrong type from the message: it may be a secret.
fn without_value(message: &str) -> String {
    const TEXT: &str = "invalid type: string \"";
    match (message.strip_prefix(TEXT), message.rfind("\", expected ")) {
        (Some(_), Some(end)) => format!("invalid type: a text{}", &message[end + 1..]),
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn a_key_in_the_wrong_table_is_told_where_it_belongs() {
        for (text, expected) in [
            (
                "listen = [\"1\"]",
                "1:1: unknown key `listen` (it belongs to [gateway])",
            ),
            (
                "lisen = [\"1\"]",
                "1:1: unknown key `lisen` (did you mean `listen`? it belongs to [gateway])",
            ),
            (
                "[gateway]\ndrain = \"3s\"",
                "2:1: unknown key `drain` (it belongs to [restart] or [sidecar.NAME])",
            ),
            (
                "[restart]\ncommand = [\"x\"]",
                "2:1: unknown key `command` (it belongs to [sidecar.NAME])",
            ),
            (
                "[recovery]\nwindow = \"3s\"",
                "2:1: unknown key `window` (it belongs to [recovery.throttle])",
            ),
            (
                "[sidecar.main]\nlisten = [\"1\"]",
                "2:1: unknown key `listen` (it belongs to [gateway])",
            ),
            (
                "[gateway]\nport = 3000",
                "2:1: unknown key `port` (clients connect to `listen` in [gateway];",
            ),
            (
                "[gateway]\nhost = \"x\"",
                "2:1: unknown key `host` (the address for clients is `listen`",
            ),
            (
                "[gateway]\nlisen = []",
                "2:1: unknown key `lisen` (did you mean `listen`?)",
            ),
            (
                "[gateway]\nzzzzzz = 1",
                "2:1: unknown key `zzzzzz` (known here: instance, listen,",
            ),
            (
                "[web]\ncommand = [\"x\"]",
                "1:2: unknown key `web` (a server is [sidecar.web]; known here: gateway,",
            ),
            (
                "[sidecar]\ncommand = [\"x\"]",
                "2:1: a server has a name: [sidecar.main] instead",
            ),
            (
                "[[sidecar]]\ncommand = [\"x\"]",
                "1:3: a server has a name: [sidecar.main], one",
            ),
            (
                "[route]\nto = \"x\"",
                "1:2: a route is [[route]], with two brackets",
            ),
            (
                "[gateway]\nlisten = \"8080\"",
                "2:10: `listen` must be a list: [\"127.0.0.1:18789\"]",
            ),
        ] {
            let said = parse(text, Some(std::path::Path::new("g")))
                .unwrap_err()
                .to_string();
            assert!(said.starts_with(&format!("g:{expected}")), "{text}: {said}");
        }
    }
}
