//! The order in which sidecars start: `after` of `[sidecar.NAME]`.

use std::collections::BTreeMap;

use super::model::Config;
use super::position::nearest;
use super::sidecar::SidecarSpec;

impl Config {
    /// The names of the sidecars, each behind those after which it starts.
    pub fn start_order(&self) -> Vec<&str> {
        let mut order = Vec::with_capacity(self.sidecar.len());
        for name in self.sidecar.keys() {
            line_up(&self.sidecar, name, &mut order, &mut Vec::new());
        }
        order
    }
}

/// Puts those before a sidecar into the order that are not in it, then itself; `above` are those that wait
/// for it, of which the check lets none stand here twice.
fn line_up<'a>(
    all: &'a BTreeMap<String, SidecarSpec>,
    name: &'a str,
    order: &mut Vec<&'a str>,
    above: &mut Vec<&'a str>,
) {
    if order.contains(&name) || above.contains(&name) {
        return;
    }
    above.push(name);
    for before in all.get(name).into_iter().flat_map(|spec| &spec.after) {
        line_up(all, before, order, above);
    }
    above.pop();
    order.push(name);
}

/// Why the sidecar `name` cannot start after those that it names.
pub(super) fn contradiction(all: &BTreeMap<String, SidecarSpec>, name: &str) -> Option<String> {
    let after = &all.get(name)?.after;
    for (index, before) in after.iter().enumerate() {
        if !all.contains_key(before) {
            let near = nearest(before, all.keys().map(String::as_str));
            let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            return Some(format!("there is no sidecar `{before}`{near}"));
        }
        if after[..index].contains(before) {
            return Some(format!("`{before}` is listed twice"));
        }
    }
    let circle = circle(all, name, name, &mut vec![name])?;
    Some(format!(
        "sidecar `{name}` would wait for itself: {}",
        circle.join(" after ")
    ))
}

/// The way from `name` over those that it starts after back to `to`.
fn circle<'a>(
    all: &'a BTreeMap<String, SidecarSpec>,
    name: &str,
    to: &str,
    way: &mut Vec<&'a str>,
) -> Option<Vec<&'a str>> {
    for before in all.get(name).into_iter().flat_map(|spec| &spec.after) {
        let seen = way.contains(&before.as_str());
        way.push(before);
        if before == to {
            return Some(way.clone());
        }
        // A circle without `to` is found where that sidecar is checked.
        if !seen && let Some(found) = circle(all, before, to, way) {
            return Some(found);
        }
        way.pop();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(after: &[(&str, &[&str])]) -> Config {
        let sidecar = |(name, after): &(&str, &[&str])| {
            format!(
                "[sidecar.{name}]\ncommand = [\"x\"]\nafter = {after:?}\n[[route]]\npath = \"/{name}\"\nto = \"{name}\"\n"
            )
        };
        let text: String = after.iter().map(sidecar).collect();
        parse(&text, None).unwrap()
    }

    #[test]
    fn each_starts_behind_those_that_it_names() {
        let config = config(&[
            ("api", &["db", "mail"]),
            ("db", &[]),
            ("front", &["api"]),
            ("mail", &["queue"]),
            ("queue", &["db"]),
        ]);
        assert_eq!(
            config.start_order(),
            ["db", "queue", "mail", "api", "front"]
        );
    }

    #[test]
    fn a_circle_and_a_name_that_is_not_there_are_refused() {
        for (after, said) in [
            (
                &[("a", &["a"] as &[&str])] as &[(&str, &[&str])],
                "sidecar `a` would wait for itself: a after a",
            ),
            (
                &[("a", &["b"]), ("b", &["c"]), ("c", &["b"])],
                "sidecar `b` would wait for itself: b after c after b",
            ),
            (
                &[("web", &["dbs"]), ("db", &[])],
                "there is no sidecar `dbs`; did you mean `db`?",
            ),
            (
                &[("web", &["db", "db"]), ("db", &[])],
                "`db` is listed twice",
            ),
        ] {
            let all = config(after).sidecar;
            let why = all
                .keys()
                .find_map(|name| contradiction(&all, name))
                .unwrap();
            assert!(why.contains(said), "{said} in {why}");
        }
    }
}
