use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::GuardLayer;
use crate::token::TokenSource;

/// A dangerous combination of settings. Made by [`GuardLayer::lint`].
///
/// `Display` names the danger and the fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lint {
    code: &'static str,
    danger: String,
    fix: &'static str,
}

impl Lint {
    /// The stable, kebab-case name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.code, self.danger, self.fix)
    }
}

impl<R, C> GuardLayer<R, C> {
    /// Names dangerous combinations of settings: for tests, and to log when the server starts.
    /// `listens_on` is the address of the server, if it is known. See the guide to
    /// [testing](crate::guide::testing#ask-the-guard).
    ///
    /// | code | danger |
    /// |---|---|
    /// | `ambient-credential` | a cookie, HTTP Basic or a client certificate, which browsers send by themselves, and handshakes from any page or without `Origin` are accepted |
    /// | `dns-rebinding` | same-origin on a loopback, private or unspecified address, without a list of hosts |
    /// | `token-in-url` | a token in the query that can be used again |
    /// | `public-suffix` | a wildcard below a public suffix, such as `https://*.co.uk` or `*.github.io` |
    /// | `report-only` | nothing is rejected by policy |
    ///
    /// ```
    /// use tower_ws_guard::{AllowOrigin, GuardLayer};
    ///
    /// # fn main() -> Result<(), tower_ws_guard::ConfigError> {
    /// let guard = GuardLayer::new(AllowOrigin::list(["https://*.co.uk"])?);
    /// let lints = guard.lint(None);
    /// assert_eq!(lints[0].code(), "public-suffix");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lint(&self, listens_on: Option<SocketAddr>) -> Vec<Lint> {
        let config = &self.policy().config;
        let mut lints = Vec::new();
        let mut add = |code, danger: String, fix| lints.push(Lint { code, danger, fix });
        let origins = config.origins.as_ref().map(|origins| origins.summary());

        if let (Some(token), Some(origins)) = (&config.token, &origins) {
            // A browser sends HTTP Basic and a certificate only where a user has chosen them.
            let is_ambient = |source: &&TokenSource| {
                source.is_cookie() || (source.is_ambient() && origins.allows_pages)
            };
            for source in token.sources().iter().filter(is_ambient) {
                if origins.allows_any_page {
                    add(
                        "ambient-credential",
                        format!(
                            "browsers send `{source}` by themselves, and any page may connect with it"
                        ),
                        "remove `allow_null` and `dangerous_any`, or the source",
                    );
                } else if origins.allows_missing {
                    add(
                        "ambient-credential",
                        format!(
                            "browsers send `{source}` by themselves, and a handshake without \
                             `Origin` is accepted; a proxy that drops `Origin` makes every page look \
                             like that"
                        ),
                        "remove `allow_missing` or the source",
                    );
                }
            }
        }
        if let Some(token) = &config.token {
            for source in token.reusable_in_query() {
                add(
                    "token-in-url",
                    format!("the token of `{source}` can be used again, and URLs end up in logs"),
                    "use one-time tickets there, or another source",
                );
            }
        }
        let is_private = listens_on.is_some_and(|address| match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
            }
            IpAddr::V6(ip) => {
                ip.is_loopback()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
                    || ip.is_unspecified()
            }
        });
        if is_private
            && config.hosts.is_none()
            && origins.as_ref().is_some_and(|origins| origins.same_origin)
        {
            add(
                "dns-rebinding",
                "a page of an attacker whose name leads to this address has the same origin"
                    .to_owned(),
                "add `allow_host`, such as `AllowHost::loopback`",
            );
        }
        let listed = origins.iter().flat_map(|origins| &origins.listed);
        let hosts = config.hosts.as_ref().map(|hosts| hosts.listed());
        for pattern in listed.chain(hosts.iter().flatten()) {
            if pattern.parent().is_some_and(is_public_suffix) {
                add(
                    "public-suffix",
                    format!("anyone can register a name that `{pattern}` matches"),
                    "list the names of your own",
                );
            }
        }
        if config.report_only {
            add(
                "report-only",
                "no policy rejects anything".to_owned(),
                "remove `dangerous_report_only` when the logs show no rejection of a real client",
            );
        }
        lints
    }
}

fn is_public_suffix(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    psl::suffix(name.as_bytes())
        .is_some_and(|suffix| suffix.is_known() && suffix == name.as_bytes())
}
