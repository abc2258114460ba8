//! Keeps web pages from using a server that listens for its own machine.
//!
//! A browser sends what any page asks it to, to any address that it reaches: a page could have texts scored, or, under a
//! name of its own that suddenly stands for this machine, read the replies. Programs send no `Origin`, so they notice
//! nothing of this.

use std::{collections::BTreeSet, net::IpAddr};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue, Uri, header, uri::Authority};

use super::{
    AppState, dialects,
    problem::{Problem, ProblemType},
};

/// Which pages may use the server, and under which names it may be asked for.
#[derive(Debug, Clone, Default)]
pub struct Visitors {
    /// The origins of pages that may use it beside its own, such as `https://console.example`.
    pub origins: BTreeSet<String>,
    /// The names under which it may be asked for beside `localhost` and addresses; any name where there is no list, as
    /// for a server that listens for other machines.
    pub hosts: Option<BTreeSet<String>>,
}

impl Visitors {
    /// Whether the request may come in.
    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let host = uri.authority().cloned().or_else(|| headers.get(header::HOST).and_then(authority));
        if let (Some(hosts), Some(host)) = (&self.hosts, &host)
            && !is_own(host.host())
            && !hosts.contains(host.host())
        {
            return Err(format!(
                "this server listens for its own machine, and was asked for as {:?}; ask for localhost, or start it with \
                 --allow-host {0}",
                host.host()
            ));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let text = origin.to_str().unwrap_or_default();
        let own = text.parse::<Uri>().ok().and_then(|origin| origin.into_parts().authority);
        if self.origins.contains(text) || (own.is_some() && own == host) {
            return Ok(());
        }
        Err(format!("a page of {text:?} may not use this server; start it with --allow-origin {text} if it should"))
    }
}

fn authority(host: &HeaderValue) -> Option<Authority> {
    host.to_str().ok()?.parse().ok()
}

/// Whether a host is no name that somebody else could give this machine.
fn is_own(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost")
}

/// Refuses what a foreign page sends.
pub(super) async fn admit(State(state): State<AppState>, request: Request, next: Next) -> Response {
    match state.visitors.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(reason) => dialects::tell(request.uri().path(), &Problem::new(ProblemType::Forbidden, reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(visitors: &Visitors, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        visitors.check(&Uri::from_static("/v1/score"), &headers).is_ok()
    }

    #[test]
    fn foreign_pages_stay_outside() {
        let local = Visitors { hosts: Some(["proxy.example".to_owned()].into()), ..Visitors::default() };
        for (host, origin, admitted) in [
            ("localhost:8080", None, true),
            ("127.0.0.1:8080", None, true),
            ("[::1]:8080", None, true),
            ("proxy.example", None, true),
            ("localhost:8080", Some("http://localhost:8080"), true),
            ("localhost:8080", Some("http://localhost:3000"), false),
            ("localhost:8080", Some("https://evil.example"), false),
            ("localhost:8080", Some("null"), false),
            // A name of somebody else's that stands for this machine now.
            ("evil.example:8080", None, false),
            ("evil.example:8080", Some("http://evil.example:8080"), false),
            ("localhost.evil.example", None, false),
        ] {
            assert_eq!(check(&local, host, origin), admitted, "{host} {origin:?}");
        }
        let open = Visitors { origins: ["https://console.example".to_owned()].into(), hosts: None };
        assert!(check(&open, "karat.svc", None));
        assert!(check(&open, "karat.svc", Some("https://console.example")));
        assert!(!check(&open, "karat.svc", Some("https://console.example.evil.example")));
    }
}
