//! Who may be talking to this listener at all: the `Host` it was reached by and the `Origin` of the page that asks.
//!
//! A page on any site can make a browser send requests to 127.0.0.1, by an address of its own that resolves to it (DNS
//! rebinding) or directly. The MCP transport specification has servers check both headers; programs that are no browser
//! send no `Origin` and are let through to authentication.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, Uri, header, uri::Authority};

use crate::config::HttpSettings;

const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// What is allowed.
pub(super) struct Guard {
    hosts: Vec<Pattern>,
    origins: Vec<(String, Pattern)>,
}

/// A host, and a port if only that one is meant.
struct Pattern {
    host: String,
    port: Option<u16>,
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().trim_end_matches(":*");
        let authority: Authority = text.parse().ok()?;
        Some(Self { host: authority.host().to_ascii_lowercase(), port: authority.port_u16() })
    }

    fn fits(&self, host: &str, port: Option<u16>) -> bool {
        self.host.eq_ignore_ascii_case(host) && (self.port.is_none() || self.port == port)
    }
}

impl Guard {
    pub(super) fn new(settings: &HttpSettings, address: SocketAddr) -> Self {
        let mut hosts: Vec<Pattern> = LOOPBACK.iter().filter_map(|host| Pattern::parse(host)).collect();
        if !address.ip().is_unspecified() {
            hosts.extend(Pattern::parse(&address.to_string()));
        }
        hosts.extend(settings.allowed_hosts.iter().filter_map(|host| Pattern::parse(host)));
        let mut origins: Vec<(String, Pattern)> = Vec::new();
        for scheme in ["http", "https"] {
            origins.extend(LOOPBACK.iter().filter_map(|host| Some((scheme.to_owned(), Pattern::parse(host)?))));
        }
        origins.extend(settings.allowed_origins.iter().filter_map(|origin| {
            let (scheme, host) = origin.split_once("://")?;
            Some((scheme.to_ascii_lowercase(), Pattern::parse(host)?))
        }));
        Self { hosts, origins }
    }

    fn allows_host(&self, host: &str) -> bool {
        host.parse::<Authority>().is_ok_and(|authority| {
            self.hosts.iter().any(|pattern| pattern.fits(authority.host(), authority.port_u16()))
        })
    }

    /// Whether a page of this origin may connect.
    pub(super) fn allows_origin(&self, origin: &HeaderValue) -> bool {
        let Some(uri) = origin.to_str().ok().and_then(|text| text.parse::<Uri>().ok()) else {
            return false;
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return false;
        };
        let port = authority.port_u16().or(match scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        });
        self.origins.iter().any(|(allowed, pattern)| allowed == scheme && pattern.fits(authority.host(), port))
    }
}

/// Lets a request through, or answers 403 with a sentence on what to set.
pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str));
    if !host.is_some_and(|host| guard.allows_host(host)) {
        let text = "Forbidden: this Host is not allowed. The operator can allow it with --allowed-host.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    if request.headers().get(header::ORIGIN).is_some_and(|origin| !guard.allows_origin(origin)) {
        let text =
            "Forbidden: pages of this Origin may not connect. The operator can allow it with --allowed-origin.\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
}

/// What is served is what it says it is.
pub(super) async fn no_sniffing(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let settings = HttpSettings {
            listen: "127.0.0.1:8811".parse().unwrap(),
            allowed_hosts: vec!["broker.example.com".into(), "other.example.com:444".into()],
            allowed_origins: vec!["https://app.example.com:*".into(), "https://one.example.com:8443".into()],
            authenticate: true,
        };
        Guard::new(&settings, settings.listen)
    }

    #[test]
    fn loopback_and_configured_hosts_are_let_in() {
        for host in [
            "localhost",
            "localhost:8811",
            "127.0.0.1:1",
            "[::1]:8811",
            "broker.example.com:99",
            "other.example.com:444",
        ] {
            assert!(guard().allows_host(host), "{host}");
        }
        for host in ["evil.example.com", "127.0.0.1.evil.com", "other.example.com:1", "", "localhost.evil", "a b"] {
            assert!(!guard().allows_host(host), "{host}");
        }
    }

    #[test]
    fn loopback_and_configured_origins_are_let_in() {
        let allowed = |origin: &str| guard().allows_origin(&HeaderValue::from_str(origin).unwrap());
        for origin in
            ["http://localhost:6274", "http://127.0.0.1", "https://app.example.com", "https://one.example.com:8443"]
        {
            assert!(allowed(origin), "{origin}");
        }
        for origin in
            ["http://evil.example.com", "https://one.example.com", "http://app.example.com", "null", "localhost"]
        {
            assert!(!allowed(origin), "{origin}");
        }
    }
}
