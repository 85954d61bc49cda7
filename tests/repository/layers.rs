//! Imports point one way: from a layer to those below it, as the map in `src/lib.rs` states them, and
//! never in a circle.
//!
//! `cargo test --test repository layers` names each import that is wrong.
//! A function that two modules need belongs in a third one below both; a type that a parent shares
//! with its children belongs in a child.

use std::collections::{BTreeMap, BTreeSet};

use crate::sources::{Import, ModulePath, Tree, of_this_crate};

/// These speak to a gateway only from outside, though they stand above it.
const OUTSIDE_OF_GATEWAY: [&str; 4] = ["service", "diagnose", "bench", "cli"];

/// The modules of the map in the documentation of a crate, from the bottom to the top.
fn layers(lib: &str) -> Vec<String> {
    let map = lib.lines().skip_while(|line| *line != "//! # Map");
    let rows = map.filter_map(|line| line.strip_prefix("//! | ["));
    let name = |row: &str| Some(row.strip_prefix('`')?.split_once('`')?.0.to_owned());
    rows.filter_map(name).collect()
}

/// The imports that go against the order of layers, and the modules that have no place in it.
fn against_the_order(tree: &Tree, layers: &[String]) -> BTreeSet<String> {
    let level = |path: &ModulePath| layers.iter().position(|layer| *layer == path[0]);
    let mut wrong = BTreeSet::new();
    for path in tree.0.keys().filter(|path| path.len() == 1) {
        if level(path).is_none() {
            wrong.insert(format!("{} is not in the map", path[0]));
        }
    }
    for Import { from, to, .. } in tree.imports() {
        // lib.rs stands above all.
        let (false, false) = (from.is_empty(), to.is_empty()) else {
            continue;
        };
        let upwards = level(&to) > level(&from);
        let into_gateway = OUTSIDE_OF_GATEWAY.contains(&from[0].as_str()) && to[0] == "gateway";
        if upwards || into_gateway {
            wrong.insert(format!("{} imports {}", from.join("::"), to.join("::")));
        }
    }
    wrong
}

/// The circles of a graph: its strongly connected parts of two nodes and more.
fn circles(edges: &BTreeSet<(String, String)>) -> Vec<BTreeSet<String>> {
    let mut after: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (from, to) in edges {
        after.entry(from).or_default().insert(to);
    }
    let reach = |from: &'_ String| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = vec![from];
        while let Some(node) = next.pop() {
            for to in after.get(node).into_iter().flatten() {
                if seen.insert((*to).clone()) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&String, BTreeSet<String>> =
        after.keys().map(|node| (*node, reach(node))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (node, all) in &reached {
        let circle: BTreeSet<String> = all
            .iter()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(*node)))
            .cloned()
            .collect();
        if circle.len() > 1 && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

/// The circles among the modules of one top-level module.
fn circles_of_files(tree: &Tree) -> Vec<BTreeSet<String>> {
    let imports = tree.imports();
    let inner = imports
        .iter()
        .filter(|import| !import.passed_on && import.from.first() == import.to.first());
    circles(
        &inner
            .map(|import| (import.from.join("::"), import.to.join("::")))
            .collect(),
    )
}

/// The imports by which the modules of a circle hold on to each other, a line each.
fn within(tree: &Tree, circle: &BTreeSet<String>) -> String {
    let imports = tree.imports();
    let names = imports
        .iter()
        .map(|import| (import.from.join("::"), import.to.join("::")));
    let inner = names.filter(|(from, to)| circle.contains(from) && circle.contains(to));
    inner
        .map(|(from, to)| format!("{from} imports {to}\n"))
        .collect()
}

fn this_crate() -> (Tree, Vec<String>) {
    let texts = of_this_crate();
    (Tree::new(&texts), layers(&texts["lib.rs"]))
}

#[test]
fn a_layer_imports_only_those_below_it() {
    let (tree, layers) = this_crate();
    assert!(layers.len() > 10, "the map of src/lib.rs: {layers:?}");
    let wrong = against_the_order(&tree, &layers);
    assert!(
        wrong.is_empty(),
        "against the order of the map in src/lib.rs: {wrong:#?}"
    );
}

#[test]
fn the_files_of_a_layer_import_each_other_in_no_circle() {
    let (tree, _) = this_crate();
    let circles: Vec<String> = circles_of_files(&tree)
        .iter()
        .map(|circle| within(&tree, circle))
        .collect();
    assert!(circles.is_empty(), "circles:\n{}", circles.join("\n"));
}

/// A crate that was made up, from its files.
fn made_up(files: &[(&str, &str)]) -> (Tree, Vec<String>) {
    let texts = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let texts: BTreeMap<String, String> = texts.collect();
    (Tree::new(&texts), layers(&texts["lib.rs"]))
}

const MADE_UP_MAP: &str = "//! # Map\n//!\n//! | module | what |\n//! |---|---|\n//! | [`low`] | below |\n//! | [`high`] | above |\n\nmod high;\npub(crate) mod low;\n";

#[test]
fn an_import_from_above_is_seen_wherever_it_stands() {
    let clean = "pub mod part;\npub struct Low;\n";
    for (ways, text) in [
        (
            0,
            "use super::Low;\n// use crate::high::Top;\n/* crate::high::Top */ const TEXT: &str = \"crate::high::Top\";",
        ),
        (
            0,
            "const A: char = '\"'; const B: &str = r#\"\" crate::high::Top\"#; fn f<'a>(_: &'a str) {}",
        ),
        (
            0,
            "#[cfg(test)]\nmod tests {\n    use crate::high::Top;\n    fn f() { crate::high::go() }\n}\n",
        ),
        (0, "#[cfg(test)]\nuse crate::high::Top;\nfn f() {}"),
        (1, "use crate::high::Top;"),
        (1, "use super::super::high;"),
        (1, "use crate::{low::Low, high::{self, Top as Other}};"),
        (1, "fn f() { let _ = crate::high::go(); }"),
        (1, "#[cfg(not(test))]\nuse crate::high::Top;"),
        (1, "pub use crate::high::*;"),
        (
            1,
            "#[cfg(test)]\nfn f() { let _ = [1; 2]; }\nfn g() -> crate::high::Top {}",
        ),
    ] {
        let (tree, layers) = made_up(&[
            ("lib.rs", MADE_UP_MAP),
            ("low/mod.rs", clean),
            ("low/part.rs", text),
            (
                "high.rs",
                "use crate::low::{part, Low};\npub struct Top;\npub fn go() {}",
            ),
        ]);
        assert_eq!(layers, ["low", "high"]);
        let wrong = against_the_order(&tree, &layers);
        assert_eq!(wrong.len(), ways, "{text}: {wrong:?}");
        assert!(
            wrong.iter().all(|wrong| wrong == "low::part imports high"),
            "{wrong:?}"
        );
    }
    let map = MADE_UP_MAP.replace("//! | [`high`] | above |\n", "");
    let (tree, layers) = made_up(&[("lib.rs", &map), ("low.rs", ""), ("high.rs", "")]);
    let wrong: Vec<String> = against_the_order(&tree, &layers).into_iter().collect();
    assert_eq!(wrong, ["high is not in the map"]);
}

#[test]
fn a_circle_is_seen_through_those_that_pass_a_name_on() {
    let circles_with = |one: &str, two: &str| {
        let (tree, _) = made_up(&[
            ("lib.rs", "mod all;"),
            (
                "all/mod.rs",
                "mod one;\nmod two;\npub use one::One;\npub use two::*;\n",
            ),
            ("all/one.rs", one),
            ("all/two.rs", two),
        ]);
        circles_of_files(&tree)
            .into_iter()
            .map(|circle| circle.into_iter().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    let one = "pub struct One;\n";
    let no_circle: [&str; 0] = [];
    assert_eq!(
        circles_with(one, "use super::One;\npub struct Two;"),
        no_circle
    );
    let circle = ["all::one all::two"];
    for uses in [
        "use super::Two;",
        "use crate::all::Two;",
        "fn f(_: super::two::Two) {}",
    ] {
        let one = format!("{uses}\n{one}");
        assert_eq!(circles_with(&one, "pub struct Two;"), no_circle);
        assert_eq!(
            circles_with(&one, "use super::One;\npub struct Two;"),
            circle,
            "{uses}"
        );
        assert_eq!(
            circles_with(&one, "pub struct Two;\nfn f(_: super::One) {}"),
            circle,
            "{uses}"
        );
        assert_eq!(
            circles_with(
                &one,
                "pub struct Two;\n#[cfg(test)]\nmod tests { use super::super::One; }"
            ),
            no_circle
        );
    }
    // A parent that works with its child, and the child with what the parent defines.
    let (tree, _) = made_up(&[
        ("lib.rs", "mod all;"),
        ("all.rs", "mod one;\npub struct All;\nfn f() { one::go() }"),
        ("all/one.rs", "use super::All;\npub fn go() {}"),
    ]);
    assert_eq!(circles_of_files(&tree).len(), 1);
}

#[test]
fn layers_in_a_circle_are_against_every_order() {
    for map in [
        "//! | [`a`] | |\n//! | [`b`] | |",
        "//! | [`b`] | |\n//! | [`a`] | |",
    ] {
        let (tree, layers) = made_up(&[
            ("lib.rs", &format!("//! # Map\n{map}\nmod a;\nmod b;\n")),
            ("a.rs", "use crate::b::B;\npub struct A;"),
            ("b.rs", "use crate::a::A;\npub struct B;"),
        ]);
        assert_eq!(against_the_order(&tree, &layers).len(), 1);
    }
}
