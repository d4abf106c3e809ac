//! The server that is asked, and what its operator says about it.

use std::{error::Error, fmt, time::Duration};

use http::Uri;

/// A server, and what must be known to ask it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// What it is called in reports. By default its URL.
    pub name: String,
    /// The URL.
    pub url: String,
    /// Whether it speaks TLS.
    pub secure: bool,
    /// Host and port, as in `Host`.
    pub authority: String,
    /// The host to connect to, without brackets.
    pub host: String,
    /// The port to connect to.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Sent as `Origin` with every handshake.
    pub origin: Option<String>,
    /// An origin that the server rejects.
    pub hostile_origin: Option<String>,
    /// Whether the server rejects a handshake without `Origin`.
    pub require_origin: bool,
    /// Sent as `Authorization: Bearer` with every handshake. The server rejects handshakes without it.
    pub token: Option<String>,
    /// A subprotocol that the server supports.
    pub subprotocol: Option<String>,
    /// More header fields for every handshake.
    pub headers: Vec<(String, String)>,
    /// Whether any certificate is accepted.
    pub insecure: bool,
    /// How long to wait for a response.
    pub timeout: Duration,
}

impl Target {
    /// Reads a URL such as `wss://example.com/chat`.
    ///
    /// # Errors
    ///
    /// If it is not a URL of a WebSocket.
    pub fn new(url: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = url.parse().map_err(|_| InvalidUrl("it is not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(InvalidUrl("it must begin with ws:// or wss://")),
        };
        let authority = uri.authority().ok_or(InvalidUrl("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl("it has a user name; use --header or --token"));
        }
        Ok(Self {
            name: url.to_owned(),
            url: url.to_owned(),
            secure,
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            origin: None,
            hostile_origin: None,
            require_origin: false,
            token: None,
            subprotocol: None,
            headers: Vec::new(),
            insecure: false,
            timeout: Duration::from_secs(3),
        })
    }

    /// The scheme of HTTP.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

/// A URL that is not one of a WebSocket.
#[derive(Clone, Debug)]
pub struct InvalidUrl(&'static str);

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for InvalidUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url() {
        let target = Target::new("wss://[::1]/chat?room=1").unwrap();
        assert!(target.secure);
        assert_eq!(target.authority, "[::1]");
        assert_eq!((&*target.host, target.port), ("::1", 443));
        assert_eq!(target.path, "/chat?room=1");
        assert_eq!(Target::new("ws://a.example:81").unwrap().path, "/");
        for url in ["http://a.example/", "ws://", "a.example", "ws://user@a.example/"] {
            assert!(Target::new(url).is_err(), "{url}");
        }
    }
}
