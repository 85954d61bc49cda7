//! The checks without a machine.

use super::*;

#[test]
fn codes_are_unique_and_in_kebab_case_and_each_has_its_section() {
    let page = page::page();
    let mut codes: Vec<&str> = checks::all().map(|check| check.code).collect();
    for check in checks::all() {
        assert!(check.code.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit()), "{}", check.code);
        assert!(page.contains(&format!(".SS {}\n", check.code.replace('-', "\\-"))), "{}", check.code);
        assert!(check.why.ends_with('.') && check.cure.ends_with('.') && !check.what.ends_with('.'), "{}", check.code);
        assert_eq!(check.mends, check.cure.starts_with("Mended: "), "{}", check.code);
    }
    let number = codes.len();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), number);
}

#[test]
fn nothing_known_is_nothing_found() {
    let found: Vec<&str> = judge(&Facts::default()).iter().map(|finding| finding.check.code).collect();
    assert!(found.is_empty(), "{found:?}");
}
