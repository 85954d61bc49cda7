//! What is behind the gateway under measure.

use std::fmt::Write as _;
use std::path::Path;

/// A case of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BenchCase {
    /// The front door alone
    Plain,
    /// A front door to a server that the gateway does not start
    NoSidecars,
    /// One HTTP server, a new copy at each restart
    OneSidecar,
    /// Fifty HTTP servers
    FiftySidecars,
}

impl BenchCase {
    pub fn id(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::NoSidecars => "no-sidecars",
            Self::OneSidecar => "one-sidecar",
            Self::FiftySidecars => "fifty-sidecars",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "gateway restart, nothing behind it",
            Self::NoSidecars => "gateway restart, no sidecars, a server of its own behind it",
            Self::OneSidecar => "gateway restart, one HTTP sidecar",
            Self::FiftySidecars => "gateway restart, 50 HTTP sidecars",
        }
    }

    fn sidecars(self) -> usize {
        match self {
            Self::Plain | Self::NoSidecars => 0,
            Self::OneSidecar => 1,
            Self::FiftySidecars => 50,
        }
    }

    /// Whether a server that nobody restarts stands behind the gateway.
    pub fn has_server(self) -> bool {
        self == Self::NoSidecars
    }

    /// The configuration of a gateway on `port`; its servers are this program, `own`. `server` is the port
    /// of the one that stands by itself.
    pub fn configuration(self, own: &Path, port: u16, server: Option<u16>) -> String {
        let mut text = format!(
            "[gateway]\nlisten = [\"127.0.0.1:{port}\"]\n[restart]\nmode = \"in-process\"\nwatch = \"0s\"\n"
        );
        if let Some(server) = server {
            // Writing to a String cannot fail.
            let _ = write!(text, "[[route]]\nto = \"http://127.0.0.1:{server}\"\n");
        }
        let own = own.to_string_lossy();
        let words = [own.as_ref(), "bench", "serve", "{port}"].map(str::to_owned);
        let command = toml::Value::from(words.to_vec());
        for number in 1..=self.sidecars() {
            // The first one has the rest, and with it what clients ask for.
            let path = match number {
                1 => "/".to_owned(),
                _ => format!("/{number}/"),
            };
            let _ = write!(
                text,
                "[[route]]\npath = \"{path}\"\nto = \"s{number}\"\n[sidecar.s{number}]\ncommand = {command}\n"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn ids_are_what_the_command_line_takes() {
        for case in BenchCase::value_variants() {
            let value = case.to_possible_value();
            assert_eq!(
                value.map(|value| value.get_name().to_owned()).as_deref(),
                Some(case.id())
            );
        }
    }

    #[test]
    fn each_configuration_is_valid() {
        for case in BenchCase::value_variants() {
            let server = case.has_server().then_some(2);
            let text = case.configuration(Path::new("/usr/bin/gatewayctl"), 1, server);
            let config = crate::config::parse(&text, None);
            let config = config.unwrap_or_else(|error| panic!("{}: {error}\n{text}", case.id()));
            assert_eq!(config.sidecar.len(), case.sidecars(), "{}", case.id());
            assert_eq!(
                config.route.len(),
                case.sidecars().max(usize::from(case.has_server()))
            );
        }
    }
}
