//! Who made a response: the server, or something in front of it, and what to write into its
//! configuration.

use crate::exchange::Received;

/// Software that stands in front of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Apache,
    Haproxy,
    Caddy,
    Traefik,
    Envoy,
    Cloudflare,
    CloudFront,
    Aws,
    Azure,
    Google,
    Heroku,
    Iis,
    Varnish,
    Squid,
    Other,
}

impl Proxy {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "Apache",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Traefik => "Traefik",
            Self::Envoy => "Envoy",
            Self::Cloudflare => "Cloudflare",
            Self::CloudFront => "CloudFront",
            Self::Aws => "an AWS load balancer",
            Self::Azure => "Azure Application Gateway",
            Self::Google => "a Google load balancer",
            Self::Heroku => "Heroku's router",
            Self::Iis => "IIS",
            Self::Varnish => "Varnish",
            Self::Squid => "Squid",
            Self::Other => "a proxy",
        }
    }

    /// How it passes an upgrade on.
    pub(crate) const fn upgrade(self) -> &'static str {
        match self {
            Self::Nginx => {
                "put into the location of this path in nginx: `proxy_http_version 1.1; \
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; \
                 proxy_set_header Host $http_host;`"
            }
            Self::Apache => {
                "put in front of every other ProxyPass of Apache (2.4.47 or newer): `ProxyPass \"/ws\" \
                 \"http://BACKEND/ws\" upgrade=websocket`; it is ignored beside an earlier ProxyPass to the same \
                 backend (AH01146 in the log)"
            }
            Self::Haproxy => {
                "HAProxy passes upgrades on in `mode http`: look for a rule that removes Upgrade, and at the \
                 server behind it"
            }
            Self::Caddy => {
                "Caddy's reverse_proxy passes upgrades on: look for a `header_up -Upgrade`, for `file_server` or \
                 `respond` in place of reverse_proxy, and at the server behind it"
            }
            Self::Traefik => {
                "Traefik passes upgrades on: look at its middlewares (buffering and compress break them), and at \
                 the server behind it"
            }
            Self::Envoy => {
                "enable it in Envoy's http_connection_manager: `upgrade_configs: [{ upgrade_type: websocket }]`"
            }
            Self::Cloudflare => {
                "turn on *WebSockets* under Network in Cloudflare's dashboard; then look at the server behind it"
            }
            Self::CloudFront => {
                "let CloudFront's origin request policy forward the Sec-WebSocket-* headers (AllViewer does)"
            }
            Self::Google => {
                "a load balancer of Google passes upgrades on, App Engine standard does not: use Cloud Run, App \
                 Engine flexible or a VM"
            }
            Self::Iis => {
                "install the feature *WebSocket Protocol* in Windows, and let ARR proxy the path"
            }
            Self::Varnish => {
                "pipe upgrades in vcl_recv: `if (req.http.upgrade ~ \"(?i)websocket\") { return (pipe); }`, and set \
                 `bereq.http.upgrade` and `bereq.http.connection` in vcl_pipe"
            }
            Self::Aws | Self::Azure | Self::Heroku | Self::Squid | Self::Other => {
                "if there is a proxy in front, let it pass Upgrade and Connection on (nginx: `proxy_http_version 1.1; \
                 proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";`; Apache: \
                 `upgrade=websocket` at the first ProxyPass to this backend, as it is ignored at a later one: AH01146)"
            }
        }
    }

    /// How it passes `Host` on.
    pub(crate) const fn host(self) -> &'static str {
        match self {
            Self::Nginx => {
                "put into the location of this path in nginx: `proxy_set_header Host $http_host;`"
            }
            Self::Apache => "put beside ProxyPass in Apache: `ProxyPreserveHost On`",
            Self::Haproxy => "remove `http-request set-header Host …` from HAProxy",
            Self::Caddy => {
                "let Caddy pass it on: `reverse_proxy BACKEND { header_up Host {host} }`"
            }
            Self::Traefik => "set `passHostHeader: true` in Traefik's service",
            Self::Envoy => {
                "remove `host_rewrite_literal` and `auto_host_rewrite` from Envoy's route"
            }
            Self::CloudFront => {
                "let CloudFront's origin request policy forward Host (AllViewer does)"
            }
            Self::Azure => {
                "let Azure's backend settings keep the host: *Override with new host name: No*"
            }
            Self::Iis => "set `preserveHostHeader=\"true\"` in ARR's proxy settings",
            _ => {
                "let the proxy in front pass Host on (nginx: `proxy_set_header Host $http_host;`; Apache: \
                 `ProxyPreserveHost On`)"
            }
        }
    }
}

/// The proxy that put its name on a response, or passed it on.
pub(crate) fn named(received: &Received) -> Option<Proxy> {
    let head = &received.head;
    let lines = ["via", "server", "x-powered-by"].into_iter().flat_map(|name| head.get_all(name));
    let lines = lines.map(|line| String::from_utf8_lossy(line).to_ascii_lowercase());
    let lines = lines.collect::<Vec<_>>();
    if head.get("cf-ray").is_some() {
        return Some(Proxy::Cloudflare);
    }
    if head.get("x-amz-cf-id").is_some() {
        return Some(Proxy::CloudFront);
    }
    KNOWN
        .iter()
        .find(|(name, _)| lines.iter().any(|line| line.contains(name)))
        .map(|(_, proxy)| *proxy)
}

const KNOWN: &[(&str, Proxy)] = &[
    ("cloudflare", Proxy::Cloudflare),
    ("cloudfront", Proxy::CloudFront),
    ("awselb", Proxy::Aws),
    ("microsoft-azure-application-gateway", Proxy::Azure),
    ("google", Proxy::Google),
    ("vegur", Proxy::Heroku),
    ("heroku", Proxy::Heroku),
    ("nginx", Proxy::Nginx),
    ("openresty", Proxy::Nginx),
    ("tengine", Proxy::Nginx),
    ("envoy", Proxy::Envoy),
    ("haproxy", Proxy::Haproxy),
    ("caddy", Proxy::Caddy),
    ("traefik", Proxy::Traefik),
    ("varnish", Proxy::Varnish),
    ("squid", Proxy::Squid),
    ("apache", Proxy::Apache),
    ("microsoft-iis", Proxy::Iis),
    ("akamai", Proxy::Other),
    ("fastly", Proxy::Other),
    ("ddos-guard", Proxy::Other),
    ("imperva", Proxy::Other),
    ("litespeed", Proxy::Other),
    ("kong", Proxy::Other),
];

/// The proxy that made the response by itself, by what only it writes.
pub(crate) fn author(received: &Received) -> Option<Proxy> {
    let head = &received.head;
    let body = String::from_utf8_lossy(&received.body.bytes).to_ascii_lowercase();
    let server = head.text("server").unwrap_or_default().to_ascii_lowercase();
    let by_body = [
        ("<hr><center>nginx", Proxy::Nginx),
        ("<hr><center>openresty", Proxy::Nginx),
        ("<hr><center>tengine", Proxy::Nginx),
        ("<address>apache", Proxy::Apache),
        ("the proxy server received an invalid response from an upstream server", Proxy::Apache),
        ("the proxy server could not handle the request", Proxy::Apache),
        ("due to maintenance downtime or capacity", Proxy::Apache),
        (
            "<h1>503 service unavailable</h1>\nno server is available to handle this request.",
            Proxy::Haproxy,
        ),
        (
            "<h1>502 bad gateway</h1>\nthe server returned an invalid or incomplete response.",
            Proxy::Haproxy,
        ),
        ("<h1>504 gateway time-out</h1>\nthe server didn't respond in time.", Proxy::Haproxy),
        ("<h1>403 forbidden</h1>\nrequest forbidden by administrative rules.", Proxy::Haproxy),
        ("<h1>400 bad request</h1>\nyour browser sent an invalid request.", Proxy::Haproxy),
        ("upstream connect error or disconnect/reset before headers", Proxy::Envoy),
        ("no healthy upstream", Proxy::Envoy),
        ("rbac: access denied", Proxy::Envoy),
        ("generated by cloudfront", Proxy::CloudFront),
        ("guru meditation", Proxy::Varnish),
        ("herokucdn.com/error-pages", Proxy::Heroku),
        ("no route matched with those values", Proxy::Other),
        ("<center>microsoft-azure-application-gateway", Proxy::Azure),
    ];
    let by_body = by_body.into_iter().find(|(text, _)| body.contains(text)).map(|(_, proxy)| proxy);
    let status = head.status;
    by_body.or_else(|| {
        if head.get("cf-ray").is_some()
            && (matches!(status, 520..=530)
                || body.contains("error code: 1")
                || body.contains("cf-error-details"))
        {
            return Some(Proxy::Cloudflare);
        }
        if server.starts_with("awselb") || matches!(status, 460 | 463 | 464 | 561) {
            return Some(Proxy::Aws);
        }
        if head.get("x-squid-error").is_some() {
            return Some(Proxy::Squid);
        }
        if head.get("x-vercel-error").is_some() || head.get("ngrok-error-code").is_some() {
            return Some(Proxy::Other);
        }
        if matches!(status, 520..=530) {
            return Some(Proxy::Cloudflare);
        }
        // By definition a gateway sends these (RFC 9110 15.6.3 and 15.6.5).
        matches!(status, 502 | 504).then(|| named(received).unwrap_or(Proxy::Other))
    })
}

/// What a status means that only one product sends.
pub(crate) fn meaning(status: u16, proxy: Proxy) -> Option<&'static str> {
    Some(match status {
        520 => "the server behind Cloudflare sent an empty or a malformed response",
        521 => "the server behind Cloudflare refused the connection",
        522 => "Cloudflare could not connect to the server behind it in time",
        523 => "Cloudflare has no route to the server behind it",
        524 => "the server behind Cloudflare did not respond in time (100 seconds)",
        525 => "the TLS handshake between Cloudflare and the server behind it failed",
        526 => "the certificate of the server behind Cloudflare is not valid",
        527 => "Cloudflare's Railgun failed",
        530 => {
            "Cloudflare could not resolve the server behind it, or its tunnel is down (error 1033)"
        }
        460 => "the client closed the connection before the load balancer's timeout",
        463 => "X-Forwarded-For has more than 30 addresses",
        464 => {
            "the protocol version of the request does not fit the target group: a WebSocket needs a target group of \
             HTTP/1.1, not HTTP/2 or gRPC"
        }
        561 => "the login at the identity provider of the load balancer failed",
        502 => match proxy {
            Proxy::Nginx | Proxy::Apache => {
                "the server behind it refused the connection, closed it, or sent a response that is not valid"
            }
            _ => "the server behind it is not reached, or its response is not valid",
        },
        503 => "no server behind it is available",
        504 => "the server behind it did not respond in time",
        _ => return None,
    })
}

/// What to do about it.
pub(crate) fn gateway_fix(status: u16, proxy: Proxy) -> String {
    match (status, proxy) {
        (521..=523, _) => {
            "let the server behind Cloudflare listen on the port to which Cloudflare connects: that of the URL, 443 for \
             wss: and 80 for ws: (80 for both with the encryption mode *Flexible*; an Origin Rule sets another, such as \
             8080); correct its address in the DNS records; let its firewall accept Cloudflare's addresses"
                .into()
        }
        (525 | 526, _) => {
            "install a valid certificate on the server behind Cloudflare (an Origin CA certificate will do), or \
             choose the encryption mode that fits it"
                .into()
        }
        (464, _) => "use a target group with protocol version HTTP1 for the path of the WebSocket".into(),
        (530, _) => "start the tunnel (cloudflared), or correct the DNS record that Cloudflare resolves".into(),
        (502 | 504, Proxy::Nginx) => {
            "look into nginx's error log for `upstream`: check proxy_pass, and that the server behind it runs".into()
        }
        (502..=504, Proxy::Apache) => {
            "look into Apache's error log for AH0: check ProxyPass, that mod_proxy_http is loaded, and that the \
             server behind it runs"
                .into()
        }
        (503, _) => format!(
            "start the server behind {}, and let it pass its health check (OpenShift, Kubernetes: the service needs a \
             pod that is ready)",
            proxy.name()
        ),
        (403, Proxy::Envoy) => Proxy::Envoy.upgrade().into(),
        (403, proxy) => format!(
            "a rule of {} rejects the request: look for deny, allow, access lists and its web application firewall, \
             and at its log",
            proxy.name()
        ),
        (404, proxy) => format!("let {} send this path to the server of the WebSocket", proxy.name()),
        (_, proxy) => format!(
            "look into the log of {}, and check that it reaches the server behind it",
            proxy.name()
        ),
    }
}
