//! The sources of the crate as the tests of this directory read them: code without comments, string
//! contents and test code, as a tree of modules, and what each module imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Absolute segments: `crate::state::owner` is `["state", "owner"]`.
pub type ModulePath = Vec<String>;

/// A module that has files of its own; twins of one name (one a system) count as one module.
#[derive(Default)]
pub struct Module {
    /// The files below `src`, with `/`.
    pub files: Vec<String>,
    /// The structures, enumerations and traits that it defines.
    pub types: BTreeSet<String>,
    children: BTreeSet<String>,
    defined: BTreeSet<String>,
    uses: Vec<Use>,
    inline: Vec<Vec<String>>,
}

/// One name that a `use` brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    path: Vec<String>,
    /// The name here; `*` for all.
    name: String,
    reexport: bool,
}

/// An import: which module uses what is defined in which other one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    pub from: ModulePath,
    pub to: ModulePath,
    /// A module that passes on what one below it defines does not depend on it.
    pub passed_on: bool,
}

/// All modules of a crate.
pub struct Tree(pub BTreeMap<ModulePath, Module>);

/// The text of every file below a directory, by its path there.
pub fn read(dir: &Path) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut dirs: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for path in fs::read_dir(next)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(dir).unwrap();
                let name = name.to_str().unwrap().replace('\\', "/");
                texts.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    texts
}

/// The sources of this crate.
pub fn of_this_crate() -> BTreeMap<String, String> {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

impl Tree {
    /// Follows the `mod` lines from `lib.rs`; what only tests declare is left out.
    pub fn new(texts: &BTreeMap<String, String>) -> Self {
        let mut tree = Self(BTreeMap::new());
        tree.add(texts, Vec::new(), "lib.rs");
        tree
    }

    fn add(&mut self, texts: &BTreeMap<String, String>, path: ModulePath, file: &str) {
        let text = texts
            .get(file)
            .unwrap_or_else(|| panic!("{file} is not there"));
        let tokens = without_tests(&tokens(text));
        let module = self.0.entry(path.clone()).or_default();
        module.files.push(file.to_owned());
        module.read(&tokens);
        for (name, own_path) in declared(&tokens) {
            self.0.get_mut(&path).unwrap().children.insert(name.clone());
            let child = [&path[..], std::slice::from_ref(&name)].concat();
            let (dir, last) = file.rsplit_once('/').unwrap_or(("", file));
            let below = match last {
                "lib.rs" | "mod.rs" => dir.to_owned(),
                _ => file.trim_end_matches(".rs").to_owned(),
            };
            let at = |name: &str| {
                if below.is_empty() {
                    name.to_owned()
                } else {
                    format!("{below}/{name}")
                }
            };
            let candidates = match own_path {
                // Beside this file, whatever its name is.
                Some(own) if dir.is_empty() => vec![own],
                Some(own) => vec![format!("{dir}/{own}")],
                None => vec![at(&format!("{name}.rs")), at(&format!("{name}/mod.rs"))],
            };
            let found = candidates.iter().find(|file| texts.contains_key(*file));
            let found = found.unwrap_or_else(|| panic!("{file}: no file for `mod {name}`"));
            self.add(texts, child, found);
        }
    }

    /// Where a path leads: to the module that defines what it names, through those that pass it on.
    fn resolve(&self, from: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        let mut at: ModulePath = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => from.to_owned(),
            "super" => from[..from.len().checked_sub(1)?].to_owned(),
            first if self.0[from].children.contains(first) => from.to_owned(),
            _ => return None,
        };
        let begins = usize::from(matches!(path[0].as_str(), "crate" | "self" | "super"));
        for (number, segment) in path.iter().enumerate().skip(begins) {
            if segment == "super" {
                at.pop()?;
                continue;
            }
            if segment == "self" {
                continue;
            }
            let module = &self.0[&at];
            if module.children.contains(segment) {
                at.push(segment.clone());
                continue;
            }
            if module.defined.contains(segment) || depth == 0 {
                return Some(at);
            }
            // Passed on by name, or with all of another module.
            let rest = &path[number + 1..];
            let named = module.uses.iter().filter(|import| import.name == *segment);
            let by_name = named.map(|import| [&import.path[..], rest].concat());
            let globs = module.uses.iter().filter(|import| import.name == "*");
            let by_glob = globs.map(|import| [&import.path[..], &path[number..]].concat());
            return by_name
                .chain(by_glob)
                .find_map(|path| self.resolve(&at, &path, depth - 1))
                .or(Some(at));
        }
        Some(at)
    }

    /// Every import of one module by another.
    pub fn imports(&self) -> BTreeSet<Import> {
        let mut found = BTreeSet::new();
        for (from, module) in &self.0 {
            let uses = module
                .uses
                .iter()
                .map(|import| (&import.path, import.reexport));
            let inline = module.inline.iter().map(|path| (path, false));
            for (path, reexport) in uses.chain(inline) {
                let Some(to) = self.resolve(from, path, 8) else {
                    continue;
                };
                let below = to.starts_with(from);
                if to != *from {
                    found.insert(Import {
                        from: from.clone(),
                        to,
                        passed_on: reexport && below,
                    });
                }
            }
        }
        found
    }
}

impl Module {
    fn read(&mut self, tokens: &[String]) {
        let mut at = 0;
        while at < tokens.len() {
            let word = tokens[at].as_str();
            if word == "use" {
                let end = at + tokens[at..].iter().position(|token| token == ";").unwrap();
                let reexport = at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
                let mut names = Vec::new();
                tree_of(&tokens[at + 1..end], &[], &mut names);
                self.uses.extend(names.into_iter().map(|(path, name)| Use {
                    path,
                    name,
                    reexport,
                }));
                at = end;
            } else if is_name(word)
                && tokens.get(at + 1).is_some_and(|next| next == "::")
                && (at == 0 || tokens[at - 1] != "::")
            {
                let mut path = vec![word.to_owned()];
                while tokens.get(at + 1).is_some_and(|next| next == "::")
                    && tokens.get(at + 2).is_some_and(|next| is_name(next))
                {
                    path.push(tokens[at + 2].clone());
                    at += 2;
                }
                self.inline.push(path);
            } else if matches!(
                word,
                "fn" | "struct" | "enum" | "trait" | "type" | "const" | "static" | "union" | "mod"
            ) {
                let name = tokens.get(at + 1).filter(|name| is_name(name)).cloned();
                if matches!(word, "struct" | "enum" | "trait") {
                    self.types.extend(name.clone());
                }
                self.defined.extend(name);
            }
            at += 1;
        }
    }
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The names of a `use` tree, each with its path.
fn tree_of(tokens: &[String], before: &[String], found: &mut Vec<(Vec<String>, String)>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].as_str() {
            "::" => {}
            "{" => {
                let (mut depth, mut begin) = (0, at + 1);
                for (number, token) in tokens.iter().enumerate().skip(at) {
                    match token.as_str() {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        _ => {}
                    }
                    if depth == 0 || depth == 1 && token == "," {
                        if begin < number {
                            tree_of(&tokens[begin..number], &path, found);
                        }
                        begin = number + 1;
                    }
                    if depth == 0 {
                        break;
                    }
                }
                return;
            }
            "*" => return found.push((path, "*".to_owned())),
            "as" => return found.push((path, tokens[at + 1].clone())),
            "self" if !path.is_empty() => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
    }
    let name = path.last().cloned().unwrap_or_default();
    found.push((path, name));
}

/// The modules that have a file of their own, with the path where one is given.
fn declared(tokens: &[String]) -> Vec<(String, Option<String>)> {
    let declares =
        |at: &usize| tokens[*at] == "mod" && tokens.get(at + 2).is_some_and(|end| end == ";");
    let own_path = |at: usize| {
        // `#[path = "..."]` and a visibility stand before it.
        let begin = tokens[..at]
            .iter()
            .rposition(|token| matches!(token.as_str(), ";" | "}"))
            .map_or(0, |end| end + 1);
        let attribute = tokens[begin..at]
            .windows(2)
            .find(|pair| pair[0] == "path" && pair[1].starts_with('"'));
        attribute.map(|pair| pair[1].trim_matches('"').to_owned())
    };
    (0..tokens.len())
        .filter(declares)
        .map(|at| (tokens[at + 1].clone(), own_path(at)))
        .collect()
}

/// What stands before an item that is there for tests alone.
const TEST_MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// The words and signs of a source, as [`tokens`], without those that are there for tests alone.
pub fn code_of(text: &str) -> Vec<String> {
    without_tests(&tokens(text))
}

/// Leaves out every item that is there for tests alone.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let marked = TEST_MARK.len() <= tokens.len() - at
            && TEST_MARK
                .iter()
                .zip(&tokens[at..])
                .all(|(mark, token)| mark == token);
        if marked {
            // To the end of the item: a `;` or a closing brace that no bracket is open around.
            let mut depth = 0;
            at += TEST_MARK.len();
            while at < tokens.len() {
                match tokens[at].as_str() {
                    "{" | "(" | "[" => depth += 1,
                    "}" | ")" | "]" => depth -= 1,
                    _ => {}
                }
                let ends = matches!(tokens[at].as_str(), ";" | "}" | ",") && depth == 0;
                if depth < 0 {
                    break;
                }
                at += 1;
                if ends {
                    break;
                }
            }
            continue;
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

/// The words and signs of a source, comments left out. Of strings only the quotes are kept, but for
/// the path of a module.
pub fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found: Vec<String> = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied().unwrap_or_default();
        if c == '/' && next == '/' {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if c == '/' && next == '*' {
            let mut depth = 0;
            while at < chars.len() {
                match (chars[at], chars.get(at + 1)) {
                    ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
                    ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
                if depth == 0 {
                    break;
                }
            }
        } else if let Some(end) = string_end(&chars, at) {
            let path = found.ends_with(&["path".to_owned()]);
            let text: String = chars[at..end].iter().collect();
            found.push(if path { text } else { "\"\"".to_owned() });
            at = end;
        } else if c == '\'' {
            // A character, or a lifetime.
            let end = if next == '\\' {
                (at + 3..chars.len()).find(|end| chars[*end] == '\'')
            } else {
                (chars.get(at + 2) == Some(&'\'')).then_some(at + 2)
            };
            at = end.map_or(at + 1, |end| end + 1);
        } else if c.is_alphanumeric() || c == '_' {
            let end =
                (at..chars.len()).find(|end| !chars[*end].is_alphanumeric() && chars[*end] != '_');
            let end = end.unwrap_or(chars.len());
            found.push(chars[at..end].iter().collect());
            at = end;
        } else if c == ':' && next == ':' {
            found.push("::".to_owned());
            at += 2;
        } else {
            // `path = "x"` is read as `path "x"`.
            let after_path = c == '=' && found.last().is_some_and(|last| last == "path");
            if !(c.is_whitespace() || after_path) {
                found.push(c.to_string());
            }
            at += 1;
        }
    }
    found
}

/// The end of a string that begins here, plain, raw, of bytes or of C.
fn string_end(chars: &[char], at: usize) -> Option<usize> {
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let mut begin = at;
    if !after_word && matches!(chars[begin], 'b' | 'c') {
        begin += 1;
    }
    let raw = !after_word && chars.get(begin) == Some(&'r');
    if raw {
        begin += 1;
        let hashes = chars[begin..].iter().take_while(|c| **c == '#').count();
        if chars.get(begin + hashes) != Some(&'"') {
            return None;
        }
        let close: Vec<char> = std::iter::once('"')
            .chain(std::iter::repeat_n('#', hashes))
            .collect();
        let from = begin + hashes + 1;
        let end = (from..chars.len()).find(|end| chars[*end..].starts_with(&close))?;
        return Some(end + close.len());
    }
    if chars.get(begin) != Some(&'"') {
        return None;
    }
    let mut end = begin + 1;
    while end < chars.len() && chars[end] != '"' {
        end += if chars[end] == '\\' { 2 } else { 1 };
    }
    Some(end + 1)
}
