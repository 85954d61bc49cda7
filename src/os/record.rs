//! Numbers in the records of a kernel.

/// `N` bytes of a record; none where the record is too short.
pub fn bytes<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// A number of 32 bits.
pub fn number(record: &[u8], at: usize) -> Option<u32> {
    bytes(record, at).map(u32::from_ne_bytes)
}
