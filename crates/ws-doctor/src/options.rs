//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Parser, ValueEnum};

use crate::{ignored::Ignored, request::Style};

/// Says why a WebSocket handshake fails, and what to do.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "ws-doctor",
    version,
    after_help = "Exit codes: 0 accepted, and the socket works; 1 rejected, or a faulty response; 2 no HTTP \
                  response; 64 a wrong command line.\n\nOther options of curl are ignored with a note, so that \
                  `Copy as cURL` of a browser's network panel runs when `curl` is replaced by `ws-doctor`."
)]
pub struct Options {
    /// The endpoint: ws, wss, http or https. Without a scheme it is wss, and ws for this computer.
    #[arg(value_name = "URL", required_unless_present_any = ["explain", "url_option", "generate"])]
    pub url: Option<String>,
    #[arg(long = "url", value_name = "URL", hide = true, conflicts_with = "url")]
    pub(crate) url_option: Option<String>,

    /// The origin of the page. Repeat it to try others for comparison. Default: that of the URL.
    #[arg(long, value_name = "ORIGIN", help_heading = "Request")]
    pub origin: Vec<String>,
    /// Add a header, as with curl: `NAME: VALUE`, `NAME:` to remove it, `NAME;` for an empty one.
    #[arg(short = 'H', long, value_name = "HEADER", help_heading = "Request")]
    pub header: Vec<String>,
    /// Send cookies: `NAME=VALUE; NAME=VALUE`.
    #[arg(short = 'b', long, value_name = "COOKIES", help_heading = "Request")]
    pub cookie: Vec<String>,
    /// Send `Authorization: Basic`.
    #[arg(short = 'u', long, value_name = "USER:PASSWORD", help_heading = "Request")]
    pub user: Option<String>,
    /// Send this User-Agent.
    #[arg(short = 'A', long, value_name = "AGENT", help_heading = "Request")]
    pub user_agent: Option<String>,
    /// Send this token. The output never shows it.
    #[arg(long, value_name = "TOKEN", help_heading = "Request", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// Read the token from a file, without the white space around it; `-` is the standard input.
    #[arg(long, value_name = "FILE", help_heading = "Request")]
    pub token_file: Option<PathBuf>,
    /// Where the token is sent: authorization (default), basic, header:NAME, cookie:NAME, query:NAME,
    /// subprotocol:PREFIX, kubernetes, phoenix or pair:MARKER.
    #[arg(long, value_name = "SOURCE", help_heading = "Request")]
    pub token_in: Option<String>,
    /// Offer this subprotocol. Repeat it for more.
    #[arg(long, value_name = "NAME", help_heading = "Request")]
    pub subprotocol: Vec<String>,
    /// The version of the protocol.
    #[arg(long, value_name = "NUMBER", default_value_t = 13, help_heading = "Request")]
    pub sec_websocket_version: u8,
    /// Use HTTP/2: extended CONNECT (RFC 8441).
    #[arg(long, alias = "http2-prior-knowledge", help_heading = "Request")]
    pub http2: bool,
    /// Send the headers of this client.
    #[arg(long = "as", value_name = "CLIENT", value_enum, default_value_t = Style::Chrome, help_heading = "Request")]
    pub style: Style,

    /// Accept every certificate of the server.
    #[arg(short = 'k', long, help_heading = "TLS")]
    pub insecure: bool,
    /// Trust the certificates in this file (PEM) in place of the system's.
    #[arg(long, alias = "ca", value_name = "FILE", help_heading = "TLS")]
    pub cacert: Option<PathBuf>,
    /// Send this client certificate (PEM).
    #[arg(short = 'E', long, value_name = "FILE", help_heading = "TLS")]
    pub cert: Option<PathBuf>,
    /// The private key of --cert (PEM), if it is in a file of its own.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub key: Option<PathBuf>,

    /// Use IPv4 only.
    #[arg(short = '4', long, conflicts_with = "ipv6", help_heading = "Way")]
    pub ipv4: bool,
    /// Use IPv6 only.
    #[arg(short = '6', long, help_heading = "Way")]
    pub ipv6: bool,
    /// Use this address for a name: `HOST:PORT:ADDRESS[,ADDRESS]`.
    #[arg(long, value_name = "HOST:PORT:ADDRESS", help_heading = "Way")]
    pub resolve: Vec<String>,
    /// Connect to another host: `HOST1:PORT1:HOST2:PORT2`. Empty parts match all, or stay.
    #[arg(long, value_name = "H1:P1:H2:P2", help_heading = "Way")]
    pub connect_to: Vec<String>,
    /// Use this forward proxy: http, https, socks5 or socks5h; '' for none. Default: HTTPS_PROXY,
    /// HTTP_PROXY, ALL_PROXY and NO_PROXY.
    #[arg(short = 'x', long, value_name = "URL", help_heading = "Way")]
    pub proxy: Option<String>,
    /// The user and the password of the proxy.
    #[arg(
        short = 'U',
        long,
        value_name = "USER:PASSWORD",
        requires = "proxy",
        help_heading = "Way"
    )]
    pub proxy_user: Option<String>,
    /// Trust the certificates in this file (PEM) for a proxy of https.
    #[arg(long, value_name = "FILE", help_heading = "Way")]
    pub proxy_cacert: Option<PathBuf>,
    /// Accept every certificate of the proxy.
    #[arg(long, help_heading = "Way")]
    pub proxy_insecure: bool,
    /// Hosts without a proxy, by comma; `*` is all.
    #[arg(long, value_name = "HOSTS", help_heading = "Way")]
    pub noproxy: Option<String>,
    /// Make the same handshake once more past the proxy in front of the server, for comparison.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Way")]
    pub direct: Option<String>,
    /// Follow a redirect, up to three times.
    #[arg(short = 'L', long, help_heading = "Way")]
    pub location: bool,

    /// Watch the open socket for this time, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Time")]
    pub wait: Option<f64>,
    /// Send a ping, and measure the time to the pong.
    #[arg(long, help_heading = "Time")]
    pub ping: bool,
    /// The timeout for all of it, in seconds, without --wait.
    #[arg(short = 'm', long, value_name = "SECONDS", value_parser = seconds, default_value = "15", help_heading = "Time")]
    pub max_time: f64,
    /// The same in milliseconds.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000), conflicts_with = "max_time", hide = true)]
    pub timeout: Option<u64>,

    /// Print one JSON object.
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// Do not mask credentials.
    #[arg(long, help_heading = "Output")]
    pub show_secrets: bool,
    /// Print all of the evidence.
    #[arg(short = 'v', long, action = ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Explain a message, a status, a close code or a code of a finding, without the network.
    #[arg(long, value_name = "TEXT", num_args = 1.., help_heading = "Output")]
    pub explain: Option<Vec<String>>,
    /// Print the man page or a completion.
    #[arg(long, value_name = "WHAT", value_enum, hide = true)]
    pub generate: Option<Generate>,

    #[command(flatten)]
    pub(crate) ignored: Ignored,
}

/// What `--generate` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Generate {
    Man,
    Bash,
    Zsh,
    Fish,
    Powershell,
    Elvish,
    /// The page with a section for each finding.
    Findings,
}

/// Up to an hour.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3600.0 => Ok(seconds),
        _ => Err("not a number of seconds above 0, up to 3600".into()),
    }
}
