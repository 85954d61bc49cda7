//! README and the pages below `docs` as tests read them: blocks, command lines, and output that is
//! compared with what the programs say.

use std::fs;
use std::path::Path;

/// A page, by its path in this repository.
pub struct Page {
    pub name: String,
    pub text: String,
}

/// Indented lines, which show commands with their output, or a file.
pub struct Block<'a> {
    /// The paragraph before it.
    intro: String,
    /// The heading that it stands below.
    pub section: &'a str,
    pub lines: Vec<&'a str>,
}

/// A command line and the output that is shown below it.
pub struct Shown<'a> {
    pub command: &'a str,
    pub output: Vec<&'a str>,
}

/// README.md and every page below `docs`.
pub fn all() -> Vec<Page> {
    let mut names = vec!["README.md".to_owned()];
    below("docs", &mut names);
    names.into_iter().map(Page::read).collect()
}

fn below(dir: &str, names: &mut Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for entry in fs::read_dir(root.join(dir)).unwrap().flatten() {
        let name = format!("{dir}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            below(&name, names);
        } else if name.ends_with(".md") {
            names.push(name);
        }
    }
}

impl Page {
    pub fn read(name: impl Into<String>) -> Self {
        let name = name.into();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, text }
    }

    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks: Vec<Block<'_>> = Vec::new();
        let (mut section, mut intro, mut inside) = ("", String::new(), false);
        for line in self.text.lines() {
            if let Some(text) = line.strip_prefix("    ") {
                if !inside {
                    blocks.push(Block {
                        intro: std::mem::take(&mut intro),
                        section,
                        lines: Vec::new(),
                    });
                }
                inside = true;
                blocks.last_mut().unwrap().lines.push(text);
            } else if line.is_empty() {
                // A blank line may belong to the block; what follows tells.
                if let Some(block) = blocks.last_mut().filter(|_| inside) {
                    block.lines.push("");
                }
            } else {
                inside = false;
                if let Some(heading) = line.trim_start_matches('#').strip_prefix(' ')
                    && line.starts_with('#')
                {
                    section = heading;
                    intro.clear();
                }
                intro = format!("{intro} {line}");
            }
        }
        for block in &mut blocks {
            while block.lines.last() == Some(&"") {
                block.lines.pop();
            }
        }
        blocks
    }

    /// What stands between backquotes in its text.
    pub fn inline(&self) -> Vec<String> {
        let text: Vec<&str> = self
            .text
            .lines()
            .filter(|line| !line.starts_with("    "))
            .collect();
        text.join("\n")
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|span| span.replace('\n', " "))
            .collect()
    }

    /// Where its relative links lead: a path seen from the page, and a heading.
    pub fn links(&self) -> Vec<(&str, Option<&str>)> {
        let targets = self.text.split("](").skip(1);
        targets
            .filter_map(|rest| rest.split(')').next())
            .filter(|link| !link.contains("://"))
            .map(|link| match link.split_once('#') {
                Some((path, heading)) => (path, Some(heading)),
                None => (link, None),
            })
            .collect()
    }

    /// The names by which links lead to its headings.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|line| {
                let heading = line.trim_start_matches('#').trim().to_lowercase();
                heading
                    .chars()
                    .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                    .map(|c| if c == ' ' { '-' } else { c })
                    .collect()
            })
            .collect()
    }

    /// The output of a command that the page shows.
    pub fn shown<'a>(&'a self, command: &str) -> Shown<'a> {
        let blocks = self.blocks();
        let mut all = blocks.iter().flat_map(Block::session);
        all.find(|shown| shown.command == command && !shown.output.is_empty())
            .unwrap_or_else(|| panic!("{} shows no output of `{command}`", self.name))
    }
}

impl<'a> Block<'a> {
    /// The file that it shows: the paragraph before ends with its name.
    pub fn file(&self) -> Option<&str> {
        let name = self.intro.strip_suffix("`:")?.rsplit('`').next()?;
        name.contains('.').then_some(name)
    }

    /// Whether it is a configuration of the gateway.
    pub fn is_configuration(&self) -> bool {
        let first = self.lines[0];
        first.starts_with('[') && first.ends_with(']')
    }

    /// Its lines as one text.
    pub fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The command lines: those after a prompt, or all where it has no prompt and is no file.
    pub fn commands(&self) -> Vec<&'a str> {
        let prompted: Vec<&str> = self.session().iter().map(|shown| shown.command).collect();
        match (prompted.is_empty(), self.file()) {
            (true, None) => self.lines.clone(),
            (true, Some(_)) => Vec::new(),
            (false, _) => prompted,
        }
    }

    /// The command lines after a prompt, for everybody or for root, each with its output.
    pub fn session(&self) -> Vec<Shown<'a>> {
        let mut session: Vec<Shown<'a>> = Vec::new();
        if self.file().is_some() {
            return session;
        }
        for line in &self.lines {
            match line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) {
                Some(command) => session.push(Shown {
                    command,
                    output: Vec::new(),
                }),
                None => session
                    .iter_mut()
                    .last()
                    .into_iter()
                    .for_each(|shown| shown.output.push(line)),
            }
        }
        session
    }
}

impl Shown<'_> {
    /// Every line that is shown was said, in this order; there may be more.
    #[track_caller]
    pub fn assert_said(&self, said: &str) {
        let mut lines = said.lines();
        for shown in self.output.iter().filter(|line| line.trim() != "...") {
            assert!(
                lines.any(|line| is_like(shown, line)),
                "`{}` does not say `{shown}` (or not in this order), as `{}`:\n{said}",
                self.command,
                pattern(shown),
            );
        }
    }
}

/// Whether a line that is shown is one that was said: numbers, times, paths and identifiers may
/// differ, and `…` stands for the rest.
fn is_like(shown: &str, said: &str) -> bool {
    let (shown, said) = (pattern(shown), pattern(said));
    match shown.strip_suffix('…') {
        Some(begin) => said.starts_with(begin.trim_end()),
        // A case of its own may add to a list.
        None => said == shown || said.starts_with(&format!("{shown}, ")),
    }
}

/// What stands behind a word.
const MARKS: [char; 4] = [',', ';', ':', ')'];

/// A line with a sign in place of what differs from run to run.
fn pattern(line: &str) -> String {
    let words = line.split_whitespace().map(|word| match word {
        word if word.starts_with('/') => "/…".to_owned(),
        // The unit of a time, and what may follow it.
        word if ["ms", "s", "min"].contains(&word.trim_end_matches(MARKS)) => {
            format!("t{}", &word[word.trim_end_matches(MARKS).len()..])
        }
        word => {
            let mut text = String::new();
            for c in word.chars() {
                match c {
                    '0'..='9' if text.ends_with('0') => {}
                    '0'..='9' => text.push('0'),
                    c => text.push(c),
                }
            }
            // 0.0, 0.0.0.0:0
            while text.contains("0.0") {
                text = text.replace("0.0", "0");
            }
            text
        }
    });
    let line = words.collect::<Vec<_>>().join(" ");
    line.replace("/… …", "…")
}
