//! The way to the server: names, addresses, TCP, and forward proxies.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::proxy::SocksV5,
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tower::ServiceExt;

use crate::{
    response::{Head, Progress, read_head},
    target::{Target, is_loopback_name},
    tls::TlsOptions,
};

/// The delay after which the next address is tried beside the first (RFC 8305 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The maximum number of addresses that are tried.
const MAX_ADDRESSES: usize = 8;

/// What the options say on the way to the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteOptions {
    /// `Some(true)`: IPv6 only; `Some(false)`: IPv4 only.
    pub(crate) ipv6: Option<bool>,
    /// Addresses for a name and a port (`--resolve`).
    pub(crate) resolve: Vec<(String, u16, Vec<IpAddr>)>,
    /// Another host and port for a name and a port; empty and `None` match all (`--connect-to`).
    pub(crate) connect_to: Vec<(String, Option<u16>, String, Option<u16>)>,
    pub(crate) proxy: Option<ProxyChoice>,
    /// For a proxy that is reached over TLS.
    pub(crate) proxy_tls: TlsOptions,
}

/// A proxy, and where the choice came from.
#[derive(Clone, Debug)]
pub(crate) struct ProxyChoice {
    intercept: Intercept,
    /// `-x`, or the names of the variables.
    pub(crate) from: String,
}

impl ProxyChoice {
    /// The proxy of `-x`, or of the environment.
    ///
    /// # Errors
    ///
    /// The URL of `-x` is not one of a proxy.
    pub(crate) fn new(
        given: Option<&str>,
        no_proxy: Option<&str>,
        target: &Target,
    ) -> Result<Option<Self>, String> {
        let uri: Uri =
            format!("{}://{}/", if target.tls() { "https" } else { "http" }, target.authority())
                .parse()
                .map_err(|_| {
                    "the host cannot be matched with the proxies of the environment".to_owned()
                })?;
        let intercept = match given {
            Some("") => return Ok(None),
            Some(proxy) => {
                let proxy = if proxy.contains("://") {
                    proxy.to_owned()
                } else {
                    format!("http://{proxy}")
                };
                let matcher = Matcher::builder()
                    .all(proxy)
                    .no(no_proxy.unwrap_or_default().to_owned())
                    .build();
                match matcher.intercept(&uri) {
                    None if no_proxy.is_none() => {
                        return Err(
                            "use http://, https://, socks5:// or socks5h://HOST:PORT".into()
                        );
                    }
                    intercept => intercept,
                }
            }
            None if no_proxy == Some("*") => None,
            None => Matcher::from_env().intercept(&uri),
        };
        let Some(intercept) = intercept else { return Ok(None) };
        if !["http", "https", "socks5", "socks5h"]
            .contains(&intercept.uri().scheme_str().unwrap_or_default())
        {
            return Err("use http://, https://, socks5:// or socks5h://HOST:PORT".into());
        }
        let from = match given {
            Some(_) => "-x".to_owned(),
            None => {
                let own = if target.tls() {
                    ["HTTPS_PROXY", "https_proxy"]
                } else {
                    ["HTTP_PROXY", "http_proxy"]
                };
                let names = own.into_iter().chain(["ALL_PROXY", "all_proxy"]);
                let set =
                    |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
                names.into_iter().find(set).unwrap_or("the environment").to_owned()
            }
        };
        Ok(Some(Self { intercept, from }))
    }

    /// Without user and password.
    pub(crate) fn url(&self) -> String {
        let uri = self.intercept.uri();
        format!(
            "{}://{}:{}",
            uri.scheme_str().unwrap_or("http"),
            uri.host().unwrap_or_default(),
            self.port()
        )
    }

    fn host(&self) -> String {
        self.intercept.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned()
    }

    fn port(&self) -> u16 {
        self.intercept.uri().port_u16().unwrap_or_else(|| match self.intercept.uri().scheme_str() {
            Some("https") => 443,
            Some("socks5" | "socks5h") => 1080,
            _ => 80,
        })
    }

    /// The password, and the login that is sent: they are never shown.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let basic = self.intercept.basic_auth().and_then(|value| value.to_str().ok());
        let basic = basic.and_then(|value| value.strip_prefix("Basic "));
        let login = basic.and_then(|basic| STANDARD.decode(basic).ok());
        let login = login.and_then(|login| String::from_utf8(login).ok());
        let password = login.and_then(|login| Some(login.split_once(':')?.1.to_owned()));
        let raw = self.intercept.raw_auth().map(|(_, password)| password.to_owned());
        basic.map(str::to_owned).into_iter().chain(password).chain(raw).collect()
    }
}

/// What was seen on the way to the server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    pub(crate) lookup: Option<Duration>,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) connected: Option<SocketAddr>,
    /// By `--resolve` or `--connect-to`.
    pub(crate) chosen: bool,
    pub(crate) tcp: Option<Duration>,
    /// The proxy, and where it was configured.
    pub(crate) proxy: Option<(String, String)>,
}

/// The attempt to connect to an address.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) address: SocketAddr,
    pub(crate) outcome: AttemptOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    Connected,
    Failed(io::ErrorKind, String),
    /// It had not ended after this time, when another address was connected or time was up.
    Pending(Duration),
}

/// Why there is no connection to the server.
#[derive(Clone, Debug)]
pub(crate) enum RouteFault {
    Lookup(String),
    LookupTimeout,
    /// The last error of the addresses.
    Connect(io::ErrorKind, String),
    ConnectTimeout,
    /// The proxy could not be reached, or did not connect; with its response if it sent one.
    Proxy {
        detail: String,
        response: Option<Box<Head>>,
        body: Vec<u8>,
    },
}

/// Connects to the target, or to the proxy and through it.
pub(crate) async fn connect(
    options: &RouteOptions,
    target: &Target,
    only: Option<SocketAddr>,
    deadline: Instant,
    way: &mut Way,
) -> Result<Link, RouteFault> {
    if let (Some(proxy), None) = (&options.proxy, only) {
        way.proxy = Some((proxy.url(), proxy.from.clone()));
        return through_proxy(options, proxy, target, deadline, way).await;
    }
    let addresses = match only {
        Some(address) => vec![address],
        None => addresses(options, target, deadline, way).await?,
    };
    let stream = connect_any(addresses, deadline, way).await?;
    Ok(Link::Tcp(stream))
}

/// A connection to the server, or one through a proxy that is reached over TLS.
pub(crate) enum Link {
    Tcp(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn addresses(
    options: &RouteOptions,
    target: &Target,
    deadline: Instant,
    way: &mut Way,
) -> Result<Vec<SocketAddr>, RouteFault> {
    let (mut host, mut port) = (target.host(), target.port());
    let redirected = options.connect_to.iter().find(|(from, from_port, ..)| {
        (from.is_empty() || from.eq_ignore_ascii_case(&host)) && from_port.is_none_or(|p| p == port)
    });
    if let Some((_, _, to, to_port)) = redirected {
        if !to.is_empty() {
            host.clone_from(to);
        }
        port = to_port.unwrap_or(port);
    }
    let fits = |address: &SocketAddr| options.ipv6.is_none_or(|ipv6| ipv6 == address.is_ipv6());
    let resolved = options
        .resolve
        .iter()
        .find(|(name, at, _)| (name.eq_ignore_ascii_case(&host) || name == "*") && *at == port);
    way.chosen = redirected.is_some() || resolved.is_some();
    let found = match resolved {
        Some((_, _, addresses)) => {
            addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
        }
        None => lookup(&host, port, deadline, way).await?,
    };
    let addresses = found.iter().copied().filter(fits).collect::<Vec<_>>();
    if addresses.is_empty() {
        let family = if options.ipv6 == Some(true) { "IPv6" } else { "IPv4" };
        return Err(RouteFault::Lookup(if found.is_empty() {
            "the name has no address".into()
        } else {
            format!("the name has no {family} address, and the options allow no other")
        }));
    }
    way.addresses.clone_from(&addresses);
    Ok(addresses)
}

async fn lookup(
    host: &str,
    port: u16,
    deadline: Instant,
    way: &mut Way,
) -> Result<Vec<SocketAddr>, RouteFault> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    // As browsers do (RFC 6761 6.3), whatever the resolver of the system knows.
    if is_loopback_name(host) {
        return Ok(vec![(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]);
    }
    let start = Instant::now();
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    way.lookup = Some(start.elapsed());
    let mut addresses: Vec<SocketAddr> = match found {
        Err(_) => return Err(RouteFault::LookupTimeout),
        Ok(Err(error)) => return Err(RouteFault::Lookup(error.to_string())),
        Ok(Ok(addresses)) => addresses.collect(),
    };
    addresses.dedup();
    Ok(addresses)
}

/// Alternates between the families (RFC 8305 4), and starts the next attempt when one fails, or
/// after [`ATTEMPT_DELAY`].
async fn connect_any(
    addresses: Vec<SocketAddr>,
    deadline: Instant,
    way: &mut Way,
) -> Result<TcpStream, RouteFault> {
    let start = Instant::now();
    let first_is_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let mut waiting = VecDeque::new();
    for i in 0..first.len().max(second.len()) {
        waiting.extend(first.get(i).into_iter().chain(second.get(i)).copied());
    }
    waiting.truncate(MAX_ADDRESSES);

    let mut attempts = JoinSet::new();
    let mut started: Vec<(SocketAddr, Instant)> = Vec::new();
    let mut next = Instant::now();
    let mut last = RouteFault::ConnectTimeout;
    let result = loop {
        if attempts.is_empty() || Instant::now() >= next {
            match waiting.pop_front() {
                Some(address) => {
                    started.push((address, Instant::now()));
                    next = Instant::now() + ATTEMPT_DELAY;
                    attempts.spawn(async move { (address, TcpStream::connect(address).await) });
                }
                None if attempts.is_empty() => break Err(last),
                None => next = deadline,
            }
        }
        tokio::select! {
            Some(done) = attempts.join_next() => match done {
                Ok((address, Ok(stream))) => {
                    way.attempts.push(Attempt { address, outcome: AttemptOutcome::Connected });
                    way.connected = Some(address);
                    way.tcp = Some(start.elapsed());
                    break Ok(stream);
                }
                Ok((address, Err(error))) => {
                    last = RouteFault::Connect(error.kind(), error.to_string());
                    let outcome = AttemptOutcome::Failed(error.kind(), error.to_string());
                    way.attempts.push(Attempt { address, outcome });
                    next = Instant::now();
                }
                Err(error) => last = RouteFault::Connect(io::ErrorKind::Other, error.to_string()),
            },
            () = sleep_until(next.min(deadline)) => {
                if Instant::now() >= deadline {
                    break Err(RouteFault::ConnectTimeout);
                }
            }
        }
    };
    for (address, since) in started {
        if !way.attempts.iter().any(|attempt| attempt.address == address) {
            way.attempts
                .push(Attempt { address, outcome: AttemptOutcome::Pending(since.elapsed()) });
        }
    }
    result
}

async fn through_proxy(
    options: &RouteOptions,
    proxy: &ProxyChoice,
    target: &Target,
    deadline: Instant,
    way: &mut Way,
) -> Result<Link, RouteFault> {
    let failed = |detail: String| RouteFault::Proxy { detail, response: None, body: Vec::new() };
    let unreachable = |fault| match fault {
        RouteFault::Lookup(error) | RouteFault::Connect(_, error) => {
            failed(format!("the proxy cannot be reached: {error}"))
        }
        _ => failed("the proxy cannot be reached: no response in time".into()),
    };
    let (host, port) = (proxy.host(), proxy.port());
    let found = lookup(&host, port, deadline, way).await.map_err(unreachable)?;
    let stream = connect_any(found, deadline, way).await.map_err(unreachable)?;

    let scheme = proxy.intercept.uri().scheme_str().unwrap_or("http");
    if scheme.starts_with("socks5") {
        return socks(options, proxy, target, stream, deadline).await.map_err(failed);
    }
    let authority = if target.host().contains(':') {
        format!("[{}]:{}", target.host(), target.port())
    } else {
        format!("{}:{}", target.host(), target.port())
    };
    let login = proxy.intercept.basic_auth().and_then(|value| value.to_str().ok());
    let login = login.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{login}\r\n");
    if scheme == "https" {
        let (config, _) = options.proxy_tls.config(&[b"http/1.1"]);
        let name =
            host.try_into().map_err(|_| failed("the name of the proxy is not valid".into()))?;
        let handshake =
            tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream);
        let stream = timeout_at(deadline, handshake).await;
        let mut stream = stream
            .map_err(|_| failed("TLS to the proxy: no response in time".into()))?
            .map_err(|error| {
                failed(format!(
                    "TLS to the proxy: {error} (--proxy-cacert FILE trusts another authority)"
                ))
            })?;
        open_tunnel(&mut stream, &request, deadline).await?;
        return Ok(Link::Tls(Box::new(stream)));
    }
    let mut stream = stream;
    open_tunnel(&mut stream, &request, deadline).await?;
    Ok(Link::Tcp(stream))
}

/// Sends CONNECT and reads the response (RFC 9110 9.3.6).
async fn open_tunnel(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    request: &str,
    deadline: Instant,
) -> Result<(), RouteFault> {
    let failed = |detail: &str| RouteFault::Proxy {
        detail: detail.into(),
        response: None,
        body: Vec::new(),
    };
    let exchange = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut bytes = Vec::new();
        loop {
            match read_head(&bytes) {
                Progress::Complete(head, length) => {
                    // An error page follows its head at once.
                    if head.status / 100 != 2 {
                        let _ = tokio::time::timeout(
                            Duration::from_millis(300),
                            stream.take(16 * 1024).read_to_end(&mut bytes),
                        )
                        .await;
                    }
                    return Ok(Some((head, bytes.split_off(length))));
                }
                Progress::TooLong => return Ok(None),
                Progress::Partial => {}
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        }
    };
    match timeout_at(deadline, exchange).await {
        Err(_) => Err(failed("the proxy accepted the connection and sent nothing")),
        Ok(Err(error)) => {
            let error: io::Error = error;
            Err(failed(&format!("the proxy closed the connection: {error}")))
        }
        Ok(Ok(None)) => Err(failed("the proxy closed the connection without an HTTP response")),
        Ok(Ok(Some((head, body)))) if head.status / 100 != 2 => Err(RouteFault::Proxy {
            detail: format!("the proxy responded to CONNECT with {} {}", head.status, head.reason),
            response: Some(head),
            body,
        }),
        Ok(Ok(Some(_))) => Ok(()),
    }
}

async fn socks(
    options: &RouteOptions,
    proxy: &ProxyChoice,
    target: &Target,
    stream: TcpStream,
    deadline: Instant,
) -> Result<Link, String> {
    // `socks5h` leaves the name to the proxy.
    let by_proxy =
        proxy.intercept.uri().scheme_str() == Some("socks5h") || target.address().is_some();
    let host = if by_proxy {
        target.host()
    } else {
        let found = lookup(&target.host(), target.port(), deadline, &mut Way::default()).await;
        let found =
            found.map_err(|_| "the name has no address; socks5h leaves the name to the proxy")?;
        let fits = |address: &&SocketAddr| options.ipv6.is_none_or(|v6| v6 == address.is_ipv6());
        found.iter().find(fits).ok_or("the name has no address")?.ip().to_string()
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let uri: Uri = format!("http://{host}:{}", target.port())
        .parse()
        .map_err(|_| "the name cannot be sent to a SOCKS proxy".to_owned())?;
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.take().ok_or(io::ErrorKind::AlreadyExists);
        async move { stream.map(TokioIo::new).map_err(io::Error::from) }
    });
    let mut socks = SocksV5::new(proxy.intercept.uri().clone(), connector);
    if let Some((user, password)) = proxy.intercept.raw_auth() {
        socks = socks.with_auth(user.to_owned(), password.to_owned());
    }
    match timeout_at(deadline, socks.oneshot(uri)).await {
        Ok(Ok(stream)) => Ok(Link::Tcp(stream.into_inner())),
        Ok(Err(error)) => Err(format!("the SOCKS proxy did not connect: {error}")),
        Err(_) => Err("the SOCKS proxy accepted the connection and sent nothing in time".into()),
    }
}
