//! Routes: which backend a request goes to, by host, then by longest path. Both are compared in their
//! normal form.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::backend::Backend;
use super::route_stats::{RequestTally, RouteStats};
use super::sessions::Sessions;
use crate::config::normal_form;

#[derive(Clone, Debug)]
pub struct Route {
    /// A host, `*.SUFFIX`, or none for every host.
    pub host: Option<String>,
    /// A path and everything below it.
    pub path: String,
    pub backend: Arc<Backend>,
    /// The sessions of its server, if they are remembered.
    pub sessions: Option<Arc<Sessions>>,
}

/// All routes, the most specific first, each with the counts of its requests.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    counted: Vec<(Route, Arc<RouteStats>)>,
    remember_sessions: bool,
}

impl Routes {
    /// Routes that go on counting where those `before` them lead the same way.
    pub fn new(mut routes: Vec<Route>, before: Option<&Self>) -> Self {
        for route in &mut routes {
            route.host = route.host.take().map(|host| normal_rule(&host));
            let path = normal_form::path(&route.path);
            route.path = path.trim_end_matches('/').to_owned();
        }
        routes.sort_by_key(|route| {
            std::cmp::Reverse((host_rank(route.host.as_deref()), route.path.len()))
        });
        let counted = |route: Route| {
            let sidecar = &route.backend.tickets.backend;
            let path = if route.path.is_empty() {
                "/"
            } else {
                &route.path
            };
            let fresh = RouteStats::new(sidecar, route.host.as_deref(), path);
            let mut kept = before.into_iter().flat_map(|before| &before.counted);
            let kept = kept.find(|(_, stats)| stats.counts_the_same(&fresh));
            let stats = kept.map_or_else(|| Arc::new(fresh), |(_, stats)| Arc::clone(stats));
            (route, stats)
        };
        let remember_sessions = routes.iter().any(|route| route.sessions.is_some());
        Self {
            counted: routes.into_iter().map(counted).collect(),
            remember_sessions,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.counted.is_empty()
    }

    /// The sessions of the server for a host and a path, if they are remembered.
    pub fn sessions(&self, host: &str, path: &str) -> Option<&Arc<Sessions>> {
        // Most know none: then nothing is compared.
        let found = self
            .remember_sessions
            .then(|| self.find_route(host, path))?;
        found?.0.sessions.as_ref()
    }

    /// The backend for a host (as in the Host field) and a path.
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Backend>> {
        self.find_counted(host, path).map(|(backend, _)| backend)
    }

    /// The same, with the counts of the route.
    pub fn find_counted(
        &self,
        host: &str,
        path: &str,
    ) -> Option<(&Arc<Backend>, &Arc<RouteStats>)> {
        let found = self.find_route(host, path);
        found.map(|(route, stats)| (&route.backend, stats))
    }

    /// A host with which a request for `path` gets to `backend`, by the most general of the routes that
    /// lead there; `any` is that of a route for every host.
    pub fn host_to(&self, backend: &Arc<Backend>, path: &str, any: &str) -> Option<String> {
        let normal = normal_form::path(path);
        let leads = |route: &&Route| {
            Arc::ptr_eq(&route.backend, backend) && path_fits(&route.path, &normal)
        };
        let host = |route: &Route| match route.host.as_deref() {
            None => any.to_owned(),
            Some(host) => match host.strip_prefix('*') {
                Some(suffix) => format!("www{suffix}"),
                None => host.to_owned(),
            },
        };
        let routes = self.counted.iter().rev().map(|(route, _)| route);
        let mut hosts = routes.filter(leads).map(host);
        hosts.find(|host| {
            let found = self.find(host, path);
            found.is_some_and(|found| Arc::ptr_eq(found, backend))
        })
    }

    fn find_route(&self, host: &str, path: &str) -> Option<&(Route, Arc<RouteStats>)> {
        let (host, path) = (normal_form::host(host), normal_form::path(path));
        let fits = |route: &Route| {
            host_fits(route.host.as_deref(), &host) && path_fits(&route.path, &path)
        };
        self.counted.iter().find(|(route, _)| fits(route))
    }

    /// Every backend, once for each rule.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.counted.iter().map(|(route, _)| &route.backend)
    }

    /// What became so far of the requests to these sidecars.
    pub fn tally(&self, sidecars: &BTreeSet<&str>) -> RequestTally {
        let mut tally = RequestTally::default();
        let counted = self.stats();
        let counted = counted.filter(|stats| sidecars.contains(stats.sidecar.as_str()));
        counted.for_each(|stats| stats.add_to(&mut tally));
        tally
    }

    /// The counts of every route.
    pub fn stats(&self) -> impl Iterator<Item = &RouteStats> {
        self.counted.iter().map(|(_, stats)| &**stats)
    }
}

/// Exact hosts before wildcards, longer wildcards before shorter ones, any host last.
fn host_rank(host: Option<&str>) -> (u8, usize) {
    match host {
        None => (0, 0),
        Some(host) if host.starts_with("*.") => (1, host.len()),
        Some(host) => (2, host.len()),
    }
}

fn normal_rule(host: &str) -> String {
    match host.strip_prefix("*.") {
        Some(suffix) => format!("*.{}", normal_form::host(suffix)),
        None => normal_form::host(host).into_owned(),
    }
}

fn host_fits(rule: Option<&str>, host: &str) -> bool {
    match rule {
        None => true,
        Some(rule) => match rule.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => host == rule,
        },
    }
}

fn path_fits(rule: &str, path: &str) -> bool {
    path.strip_prefix(rule)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Door;

    fn routes(rules: &[(Option<&str>, &str, &str)]) -> Routes {
        let route = |&(host, path, name): &(Option<&str>, &str, &str)| Route {
            host: host.map(str::to_owned),
            path: path.to_owned(),
            backend: Backend::new(name, Door::Gone),
            sessions: None,
        };
        Routes::new(rules.iter().map(route).collect(), None)
    }

    #[test]
    fn the_most_specific_route_wins() {
        let routes = routes(&[
            (None, "/", "root"),
            (None, "/api", "api"),
            (None, "/api/v2/", "v2"),
            (Some("*.example.org"), "/", "wild"),
            (Some("a.example.org"), "/x", "exact"),
        ]);
        for (host, path, expected) in [
            ("localhost:1", "/", Some("root")),
            ("localhost", "/apiary", Some("root")),
            ("localhost", "/api", Some("api")),
            ("localhost", "/api/v2", Some("v2")),
            ("localhost", "/api/v2/x", Some("v2")),
            ("B.Example.ORG:80", "/api", Some("wild")),
            ("a.example.org", "/x/y", Some("exact")),
            ("a.example.org", "/y", Some("wild")),
            ("example.org", "/y", Some("root")),
            ("[::1]:80", "/", Some("root")),
            ("A.example.org.:80", "//x/y", Some("exact")),
            ("a.example.org", "/%78", Some("exact")),
            ("b.example.org.", "/", Some("wild")),
            ("localhost", "/y/..//api/./v2", Some("v2")),
            ("localhost", "/api/../x", Some("root")),
        ] {
            assert_eq!(
                routes
                    .find(host, path)
                    .map(|backend| backend.tickets.backend.as_str()),
                expected,
                "{host}{path}"
            );
        }
        assert!(super::Routes::default().find("a", "/").is_none());
    }

    #[test]
    fn a_host_is_found_by_which_a_path_leads_to_a_backend() {
        let routes = routes(&[
            (None, "/", "root"),
            (None, "/api", "api"),
            (Some("127.0.0.1"), "/", "local"),
            (Some("*.example.org"), "/", "wild"),
            (Some("a.example.org"), "/x", "exact"),
        ]);
        let host = |name: &str, path, any| {
            let mut backends = routes.backends();
            let backend = backends.find(|one| one.tickets.backend == name).unwrap();
            routes.host_to(backend, path, any)
        };
        for (name, path, any, expected) in [
            ("root", "/up", "localhost:1", Some("localhost:1")),
            ("root", "/up", "127.0.0.1:1", None),
            ("root", "/api/up", "localhost:1", None),
            ("api", "/api/up", "localhost:1", Some("localhost:1")),
            ("api", "/", "localhost:1", None),
            ("local", "/", "localhost:1", Some("127.0.0.1")),
            ("wild", "/", "localhost:1", Some("www.example.org")),
            ("exact", "/x/y", "localhost:1", Some("a.example.org")),
        ] {
            let found = host(name, path, any);
            assert_eq!(found.as_deref(), expected, "{path} of {name}");
        }
    }
}
