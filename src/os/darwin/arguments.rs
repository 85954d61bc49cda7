//! The arguments of a process as sysctl KERN_PROCARGS2 gives them (sys/sysctl.h).

/// The arguments in a block. It contains the number of arguments, the path that was executed, zero
/// bytes up to a word's boundary, the arguments, and the environment; each string ends with a zero
/// byte. None where the block is cut short.
pub fn parse(block: &[u8]) -> Option<Vec<String>> {
    let count = usize::try_from(i32::from_ne_bytes(super::bytes(block, 0)?)).ok()?;
    let rest = block.get(4..)?;
    let path = rest.iter().position(|byte| *byte == 0)?;
    let rest = rest.get(path..)?;
    // An empty first argument looks the same.
    let padding = rest
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(rest.len());
    let mut rest = rest.get(padding..)?;
    let mut found = Vec::new();
    for _ in 0..count {
        let end = rest.iter().position(|byte| *byte == 0)?;
        found.push(String::from_utf8_lossy(rest.get(..end)?).into_owned());
        rest = rest.get(end + 1..)?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(count: i32, text: &[u8]) -> Vec<u8> {
        [count.to_ne_bytes().as_slice(), text].concat()
    }

    #[test]
    fn arguments_without_the_path_and_without_the_environment() {
        let whole = block(3, b"/usr/bin/x\0\0\0\0\0x\0\0a b\0HOME=/\0");
        assert_eq!(parse(&whole).unwrap(), ["x", "", "a b"]);
        assert_eq!(parse(&block(0, b"/x\0\0")).unwrap(), Vec::<String>::new());
        assert_eq!(parse(&block(1, b"/x\0\0a\0")).unwrap(), ["a"]);
    }

    #[test]
    fn garbage_is_nothing_and_no_panic() {
        for bad in [
            block(2, b"/x\0\0a\0"),
            block(-1, b"/x\0a\0"),
            block(i32::MAX, b"/x\0a\0"),
            block(1, b"/x"),
            block(1, b"/x\0a"),
            vec![1],
        ] {
            assert_eq!(parse(&bad), None, "{bad:?}");
        }
        let whole = block(2, b"/x\0\0a\0b\0");
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
    }
}
