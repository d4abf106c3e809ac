//! Whether the upgrade arrived: the same GET without it tells.

use super::rejected::{status_line, words};
use crate::{
    codes::Code,
    exchange::{Exchange, Received},
    finding::Finding,
    probe::{Observations, Probe},
    who::{self, Proxy},
};

pub(super) fn finding(seen: &Observations, received: &Received, text: &str) -> Option<Finding> {
    let says_so = SAYS_NO_UPGRADE.iter().any(|words| text.contains(words));
    let other = seen.made(&Probe::WithoutUpgrade).and_then(Exchange::received);
    let is_same = other.is_some_and(|other| {
        other.head.status == received.head.status
            && skeleton(&other.text) == skeleton(&received.text)
    });
    if !is_same && !says_so {
        return None;
    }
    let status = received.head.status;
    let line = status_line(received);
    let server = received.head.text("server").unwrap_or_default().to_ascii_lowercase();
    if status == 404 && server == "uvicorn" {
        return Some(
            Finding::new(Code::NoWebsocketHere)
                .because(format!(
                    "{line}: uvicorn takes the handshake for an ordinary request: it has no WebSocket library"
                ))
                .fix(
                    "pip install 'uvicorn[standard]' (or websockets, or wsproto), and restart it; its log says `No \
                     supported WebSocket library detected`",
                ),
        );
    }
    let proxy = who::named(received);
    if says_so || proxy.is_some() || matches!(status, 200 | 426) {
        let proxy = proxy.unwrap_or(Proxy::Other);
        let evidence = if is_same {
            "the same request without Upgrade gets the same response"
        } else {
            "the server says so"
        };
        let path = seen.main.target.path();
        // A page of Vite itself shows that the path is right.
        let (because, page) = if status == 200 && !is_vite(received) {
            (
                format!(
                    "an ordinary page comes back ({evidence}): nothing sends the path `{path}` to the server of the \
                     WebSocket, so that a fallback page is served; or {} in front does not pass the upgrade on",
                    proxy.name()
                ),
                "send this path to the server of the WebSocket (in nginx a location with proxy_pass); then: ",
            )
        } else {
            (
                format!(
                    "the upgrade did not arrive ({evidence}): {} in front does not pass it on, or nothing at the path \
                     `{path}` speaks WebSocket",
                    proxy.name()
                ),
                "",
            )
        };
        // FastAPI's body.
        let library = if status == 404 && text.contains("{\"detail\":\"not found\"}") {
            "; if that is done, uvicorn has no WebSocket library: pip install 'uvicorn[standard]'"
        } else {
            ""
        };
        return Some(
            Finding::new(Code::UpgradeStripped)
                .because(format!("{line}: {because}"))
                .detail(words(received))
                .fix(format!("{page}{}{library}", proxy.upgrade())),
        );
    }
    if status == 404 {
        return None;
    }
    Some(
        Finding::new(Code::NoWebsocketHere)
            .because(format!(
                "{line}: nothing at the path `{}` speaks WebSocket: an ordinary request gets the same response",
                seen.main.target.path()
            ))
            .detail(words(received))
            .fix(
                format!(
                    "check the path, and that the WebSocket support of the server is enabled; {}",
                    Proxy::Other.upgrade()
                ),
            ),
    )
}

/// Its development server adds a script to each page.
pub(super) fn is_vite(page: &Received) -> bool {
    String::from_utf8_lossy(&page.body.bytes).contains("/@vite/client")
}

/// What servers say when the upgrade did not arrive.
const SAYS_NO_UPGRADE: &[&str] = &[
    "no websocket upgrade hdr",
    "can \"upgrade\" only to \"websocket\"",
    "\"connection\" must be \"upgrade\"",
    "'upgrade' token not found",
    "connection header did not include 'upgrade'",
    "`upgrade` header did not include",
    "not a websocket handshake",
    "missing upgrade",
    "invalid upgrade header",
    "upgrade required",
    "expected upgrade",
    "expected a websocket",
    "not a websocket request",
    "websocket upgrade required",
];

/// The text without what changes from request to request: words with digits in them.
fn skeleton(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words
        .filter(|word| !word.bytes().any(|byte| byte.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(" ")
}
