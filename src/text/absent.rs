//! Numbers of which 0 says that there is none. JSON leaves them out: a program that takes 0 for a
//! process, a port or a time is wrong, and signals its own group.

/// Whether a number stands for none.
pub fn zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Pairs of a name and a process; of none, the second is null.
pub mod processes {
    use serde::{Deserialize, Deserializer, Serializer};

    /// What stands in the JSON.
    pub type Pairs = Vec<(String, Option<u32>)>;

    /// As null where it is 0.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        pairs: &[(String, u32)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs = pairs.iter();
        serializer.collect_seq(pairs.map(|(name, pid)| (name, Some(*pid).filter(|pid| *pid != 0))))
    }

    /// Null as 0.
    ///
    /// # Errors
    /// When it is no list of such pairs.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(String, u32)>, D::Error> {
        let pairs = Pairs::deserialize(deserializer)?.into_iter();
        Ok(pairs
            .map(|(name, pid)| (name, pid.unwrap_or_default()))
            .collect())
    }
}
