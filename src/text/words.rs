//! Closed sets of words: what is printed, sent and recorded for programs. Each set is an enumeration,
//! so that no decision depends on a text, and the schemas name every word.

/// An enumeration that [`words!`](crate::text::words::words) defined.
pub trait Words: Copy + Sized + 'static {
    /// Every variant, in the order of the definition.
    const ALL: &'static [Self];

    /// The word of this variant.
    fn word(self) -> &'static str;

    /// The word for people: "safe mode" for `safe_mode` or `safe-mode`.
    fn in_words(self) -> String {
        self.word().replace(['_', '-'], " ")
    }

    /// The variant of this word.
    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.word() == word)
    }

    /// All words, for a pattern of a schema.
    fn alternatives() -> String {
        let words: Vec<&str> = Self::ALL.iter().map(|one| one.word()).collect();
        words.join("|")
    }
}

/// A word that is none of its set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not known")]
pub struct UnknownWord(pub String);

/// Defines an enumeration of words: serialized, displayed, parsed and described in the schema as
/// the word that stands behind each variant.
macro_rules! words {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident {
            $($(#[$doc:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema,
        )]
        $vis enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $crate::text::words::Words for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.pad($crate::text::words::Words::word(*self))
            }
        }

        impl ::std::str::FromStr for $name {
            type Err = $crate::text::words::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::text::words::Words::from_word(text)
                    .ok_or_else(|| $crate::text::words::UnknownWord(text.to_owned()))
            }
        }
    };
}
pub(crate) use words;

/// Serializes a type as the text that it displays and parses, with its name and schema.
macro_rules! as_text {
    ($name:ident as $shown:literal, $schema:tt) => {
        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }

        impl ::schemars::JsonSchema for $name {
            fn schema_name() -> ::std::borrow::Cow<'static, str> {
                $shown.into()
            }

            fn json_schema(_: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                ::schemars::json_schema!($schema)
            }
        }
    };
}
pub(crate) use as_text;

#[cfg(test)]
mod tests {
    use super::*;

    words! {
        /// For this test.
        enum Sample {
            /// The first.
            One = "one",
            /// The second.
            TwoWords = "two words",
        }
    }

    #[test]
    fn a_word_is_printed_parsed_and_described_alike() {
        assert_eq!(Sample::TwoWords.to_string(), "two words");
        assert_eq!(format!("{:<5}|", Sample::One), "one  |");
        assert_eq!("two words".parse(), Ok(Sample::TwoWords));
        assert_eq!("two".parse::<Sample>(), Err(UnknownWord("two".to_owned())));
        assert_eq!(
            serde_json::to_string(&Sample::TwoWords).unwrap(),
            "\"two words\""
        );
        let schema = schemars::schema_for!(Sample).to_value();
        assert_eq!(schema["oneOf"][1]["const"], "two words");
        assert_eq!(schema["oneOf"][1]["description"], "The second.");
    }
}
