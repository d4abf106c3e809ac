//! The URL, read as a browser reads it.

use std::{fmt, net::IpAddr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::{Host, Url};

/// The endpoint of a handshake.
///
/// Names and paths are encoded as browsers encode them: the name by IDNA, the path and the query
/// by percent-encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    url: Url,
    /// The user name and the password of the URL, decoded.
    pub(crate) userinfo: Option<(String, String)>,
}

impl Target {
    /// Parses `ws`, `wss`, `http` and `https` URLs in any case. Without a scheme it is `wss`, and
    /// `ws` for a loopback address.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, without the URL.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let parsed = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => {
                if !["ws", "wss", "http", "https"].contains(&&*scheme.to_ascii_lowercase()) {
                    return Err("the scheme is not ws, wss, http or https".into());
                }
                Url::parse(&format!("{scheme}://{rest}"))
            }
            _ => {
                let rest = text.trim_start_matches('/');
                Url::parse(&format!("wss://{rest}")).and_then(|url| {
                    if is_loopback(&url) { Url::parse(&format!("ws://{rest}")) } else { Ok(url) }
                })
            }
        };
        let mut url = parsed.map_err(|error| format!("{error}"))?;
        let userinfo = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            (decode(url.username()), decode(url.password().unwrap_or_default()))
        });
        let cannot_fail = "the URL has a host";
        url.set_username("").expect(cannot_fail);
        url.set_password(None).expect(cannot_fail);
        url.set_fragment(None);
        let scheme = match url.scheme() {
            "http" => "ws",
            "https" => "wss",
            scheme => scheme,
        }
        .to_owned();
        url.set_scheme(&scheme).expect("all four schemes are special ones");
        Ok(Self { url, userinfo })
    }

    /// The target of a redirect, with the scheme of a WebSocket.
    pub(crate) fn redirected(&self, location: &str) -> Option<Self> {
        Self::parse(self.url.join(location).ok()?.as_str()).ok()
    }

    /// The address of the page that a redirect leads to.
    pub(crate) fn page(&self, location: &str) -> String {
        let mut base = self.url.clone();
        base.set_scheme(if self.tls() { "https" } else { "http" })
            .expect("both schemes are special ones");
        base.join(location).map_or_else(|_| location.to_owned(), String::from)
    }

    /// The same endpoint, with TLS or without.
    pub(crate) fn with_tls(&self, tls: bool) -> Self {
        let mut target = self.clone();
        let port = self.port();
        let scheme = if tls { "wss" } else { "ws" };
        target.url.set_scheme(scheme).expect("both schemes are special ones");
        target.url.set_port(Some(port)).expect("the URL has a host");
        target
    }

    /// Adds a parameter to the query.
    pub(crate) fn add_to_query(&mut self, name: &str, value: &str) {
        // Not `+` for a space: many servers do not decode it.
        let pair = format!("{}={}", percent_encode(name), percent_encode(value));
        let query = match self.url.query() {
            Some(query) if !query.is_empty() => format!("{query}&{pair}"),
            _ => pair,
        };
        self.url.set_query(Some(&query));
    }

    pub(crate) fn tls(&self) -> bool {
        self.url.scheme() == "wss"
    }

    /// The name or the address, without brackets.
    pub(crate) fn host(&self) -> String {
        match self.url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(),
        }
    }

    /// The address, if the URL has one in place of a name.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self.url.host()? {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    /// Whether the URL is of this computer by its name or address.
    pub(crate) fn is_loopback(&self) -> bool {
        is_loopback(&self.url)
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(443)
    }

    /// Host and port, without the default port of the scheme, as in `Host`.
    pub(crate) fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The path and the query.
    pub(crate) fn path(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    /// The parameters of the query, decoded.
    pub(crate) fn query(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned()))
    }

    /// The origin of a page of this server: scheme, host and port.
    pub(crate) fn origin(&self) -> String {
        let scheme = if self.tls() { "https" } else { "http" };
        format!("{scheme}://{}", self.authority())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str())
    }
}

/// All characters except the unreserved ones (RFC 3986 2.3).
fn percent_encode(text: &str) -> String {
    const SET: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, SET).to_string()
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// `localhost`, the names below it (RFC 6761 6.3), and loopback addresses.
pub(crate) fn is_loopback_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => is_loopback_name(name),
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn url_is_read_as_browsers_read_it() {
        for (text, url, origin) in [
            ("ws://a.example/ws", "ws://a.example/ws", "http://a.example"),
            ("WSS://A.Example/WS#x", "wss://a.example/WS", "https://a.example"),
            ("https://a.example:443", "wss://a.example/", "https://a.example"),
            ("http://a.example:8080?a=b", "ws://a.example:8080/?a=b", "http://a.example:8080"),
            ("a.example/ws", "wss://a.example/ws", "https://a.example"),
            (
                "a.example:8443/x?u=http://b",
                "wss://a.example:8443/x?u=http://b",
                "https://a.example:8443",
            ),
            ("localhost:3000/ws", "ws://localhost:3000/ws", "http://localhost:3000"),
            ("app.localhost/ws", "ws://app.localhost/ws", "http://app.localhost"),
            ("127.0.0.1:80", "ws://127.0.0.1/", "http://127.0.0.1"),
            ("[::1]:3000", "ws://[::1]:3000/", "http://[::1]:3000"),
            ("//a.example/ws", "wss://a.example/ws", "https://a.example"),
            (
                "wss://bücher.example/größe?ä=a b",
                "wss://xn--bcher-kva.example/gr%C3%B6%C3%9Fe?%C3%A4=a%20b",
                "https://xn--bcher-kva.example",
            ),
            ("wss://a.example/a b", "wss://a.example/a%20b", "https://a.example"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((&*target.to_string(), &*target.origin()), (url, origin), "{text}");
        }
    }

    #[test]
    fn userinfo_is_taken_out_of_the_url() {
        let target = Target::parse("wss://user:p%40ss@a.example/").unwrap();
        assert_eq!(target.to_string(), "wss://a.example/");
        assert_eq!(target.userinfo, Some(("user".into(), "p@ss".into())));
    }

    #[test]
    fn wrong_url_is_an_error_without_the_url() {
        for text in
            ["", "ftp://a.example", "ws://", "ws://a b/", "ws://user:s3cr3t@a:99999/", "ws://[::1/"]
        {
            let error = Target::parse(text).unwrap_err();
            assert!(!error.is_empty() && !error.contains("s3cr3t"), "{text}: {error}");
        }
    }
}
