//! What `launchctl print-disabled` says: labels that launchd does not load, also at the next login or boot.

/// Whether a label is disabled; false where nothing is said of it. `"LABEL" => true` up to macOS 12, `=> disabled`
/// since; a block of other things may follow.
pub fn is_disabled(text: &str, label: &str) -> bool {
    let lines = text.lines().map(str::trim);
    let rows = lines.take_while(|line| *line != "}");
    let mut pairs = rows.filter_map(|row| row.split_once(" => "));
    let value = pairs.find(|(key, _)| key.trim_matches('"') == label);
    value.is_some_and(|(_, value)| matches!(value, "true" | "disabled"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_new_words_are_understood() {
        let said = |value: &str| {
            format!(
                "\tdisabled services = {{\n\t\t\"a.b\" => {value}\n\t\t\"c\" => true\n\t}}\n\tlogin item associations = {{\n\t\t\"d\" => true\n\t}}\n"
            )
        };
        for (value, expected) in [
            ("true", true),
            ("disabled", true),
            ("false", false),
            ("enabled", false),
        ] {
            assert_eq!(is_disabled(&said(value), "a.b"), expected, "{value}");
        }
        assert!(is_disabled(&said("true"), "c"));
        assert!(!is_disabled(&said("true"), "d"), "another block");
        assert!(!is_disabled(&said("true"), "b") && !is_disabled("", "a.b"));
    }
}
