//! A run: from the options to the report.

use std::{
    io::Read as _,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;
use tower_ws_guard::Origin;
use url::Url;

use crate::{
    exchange::{Detour, End, Exchange, Means, WATCH, exchange},
    judge::judge,
    options::Options,
    probe::{Given, MAX_REQUESTS, Observations, Probe, next},
    report::Report,
    request::{Plan, Style, TokenIn, Variant, is_token_byte, new_key},
    route::{ProxyChoice, RouteOptions},
    secrets::{Secrets, is_credential, is_secret, token_in},
    target::Target,
    tls::TlsOptions,
};

/// A run that was prepared: the options were checked, and files read.
#[derive(Debug)]
pub struct Doctor {
    means: Means,
    given: Given,
    style: Style,
    time: Duration,
    follow: bool,
    secrets: Secrets,
    notes: Vec<String>,
    proxy: (Option<String>, Option<String>),
}

impl Doctor {
    /// Checks the options.
    ///
    /// # Errors
    ///
    /// Names the option, the fault and how it is written, without secrets.
    pub fn new(options: &Options) -> Result<Self, String> {
        let mut secrets = Secrets::new(options.show_secrets);
        let mut notes = Vec::new();
        let url =
            options.url.as_ref().or(options.url_option.as_ref()).ok_or("the URL is missing")?;
        let target = Target::parse(url).map_err(|error| format!("the URL: {error}"))?;
        if !url.contains("://") {
            notes.push(format!("the URL has no scheme, so it is {target}"));
        }
        let mut plan = Plan {
            http2: options.http2,
            agent: options.user_agent.clone(),
            cookies: Vec::new(),
            basic: options.user.clone(),
            token: token(options)?,
            subprotocols: options.subprotocol.clone(),
            version: options.sec_websocket_version,
            headers: Vec::new(),
            key: new_key(),
            target,
        };
        if let (None, Some((user, password))) = (&plan.basic, &plan.target.userinfo) {
            plan.basic = Some(format!("{user}:{password}"));
            notes.push(
                "the user and the password of the URL are sent as Authorization: Basic; Chrome and Firefox do so, too"
                    .into(),
            );
        }
        for cookie in &options.cookie {
            if !cookie.contains('=') {
                return Err("-b: a cookie is NAME=VALUE; files of cookies are not read".into());
            }
            plan.cookies.push(header_value("-b", cookie.trim())?.to_owned());
        }
        let mut origins = options.origin.clone();
        for header in &options.header {
            let (name, value) = parse_header(header)?;
            match (&*name.to_ascii_lowercase(), value) {
                ("origin", Some(origin)) => origins.push(origin),
                ("cookie", Some(cookie)) => plan.cookies.push(cookie),
                ("sec-websocket-protocol", Some(list)) => {
                    let list = list.split(',').map(|name| name.trim().to_owned());
                    plan.subprotocols.extend(list.filter(|name| !name.is_empty()));
                }
                ("sec-websocket-key", Some(key)) => plan.key = key,
                (_, value) => plan.headers.push((name, value)),
            }
        }
        for origin in &origins {
            check_origin(origin)?;
        }
        for subprotocol in &plan.subprotocols {
            if subprotocol.is_empty() || !subprotocol.bytes().all(is_token_byte) {
                // kubectl's is none (`SPDY/3.1+…`), so only what would end the list is an error.
                if subprotocol.contains(|c: char| c == ',' || c.is_whitespace() || c.is_control())
                    || subprotocol.is_empty()
                {
                    return Err("--subprotocol: a name has no spaces and commas; repeat the option for more".into());
                }
            }
        }
        for (option, value) in [("-u", &plan.basic), ("-A", &plan.agent)] {
            if let Some(value) = value {
                header_value(option, value)?;
            }
        }

        if let Some((token, _)) = &plan.token {
            secrets.add(token);
            if let Some((_, password)) = token.split_once(':') {
                secrets.add(password);
            }
        }
        if let Some(basic) = &plan.basic {
            secrets.add(basic);
            secrets.add(basic.split_once(':').map_or(&**basic, |(_, password)| password));
        }
        for token in plan.subprotocols.iter().filter_map(|name| token_in(name)) {
            secrets.add(token);
        }
        let pairs = plan.cookies.iter().flat_map(|cookies| cookies.split(';'));
        pairs.filter_map(|pair| pair.split_once('=')).for_each(|(_, value)| secrets.add(value));
        let query = plan.target.query().filter(|(name, value)| is_secret(name, value));
        query.for_each(|(_, value)| secrets.add(&value));
        for (name, value) in &plan.headers {
            if let Some(value) = value
                && is_credential(name)
                && !name.to_ascii_lowercase().starts_with("sec-websocket-")
            {
                secrets.add(value.split_once(' ').map_or(&**value, |(_, credential)| credential));
            }
        }

        let route = route(options)?;
        let tls = TlsOptions::new(options.insecure, "--cacert", options.cacert.as_deref())?
            .with_client(options.cert.as_deref(), options.key.as_deref())?;
        if !options.ignored.0.is_empty() {
            notes.push(format!(
                "ignored, as a handshake does not need it: {}",
                options.ignored.0.join(", ")
            ));
        }
        let bare = options.style == Style::Bare;
        if origins.is_empty() && !bare {
            let is_mixed = !plan.target.tls() && !plan.target.is_loopback();
            notes.push(format!(
                "Origin is that of the URL, {}: give that of your page with --origin{}",
                plan.target.origin(),
                if is_mixed {
                    "; a page of https: could not open this ws: URL (mixed content)"
                } else {
                    ""
                }
            ));
        }
        if options.wait.is_none() && options.ping {
            notes.push("--ping measures within the usual 500 ms: --wait watches for longer".into());
        }
        let proxy = match (&options.proxy, &options.proxy_user) {
            (Some(proxy), Some(user)) => {
                let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
                let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
                let (user, password) = user.split_once(':').unwrap_or((user, ""));
                secrets.add(password);
                Some(format!("{scheme}://{}:{}@{rest}", encode(user), encode(password)))
            }
            (proxy, _) => proxy.clone(),
        };
        let credential = plan.token.is_some()
            || plan.basic.is_some()
            || !plan.cookies.is_empty()
            || plan.subprotocols.iter().any(|name| token_in(name).is_some())
            || plan.headers.iter().any(|(name, _)| is_credential(name))
            || plan.target.query().any(|(name, value)| is_secret(&name, &value));
        let given = Given {
            origins,
            bare,
            credential,
            subprotocols: plan.subprotocols.clone(),
            cacert: options.cacert.as_ref().map(|path| path.display().to_string()),
            client_certificate: options.cert.is_some(),
            http2: plan.http2,
            direct: options.direct.clone(),
            now: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        };
        if let Some(direct) = &options.direct {
            direct_target(direct)?;
        }
        let watch = options.wait.map_or(WATCH, Duration::from_secs_f64);
        let mut doctor = Self {
            means: Means { plan, route, tls, watch, ping: options.ping },
            given,
            style: options.style,
            time: options
                .timeout
                .map_or_else(|| Duration::from_secs_f64(options.max_time), Duration::from_millis),
            follow: options.location,
            secrets,
            notes,
            proxy: (proxy, options.noproxy.clone()),
        };
        doctor.choose_proxy()?;
        Ok(doctor)
    }

    fn choose_proxy(&mut self) -> Result<(), String> {
        let (given, no_proxy) = (self.proxy.0.as_deref(), self.proxy.1.as_deref());
        let proxy = ProxyChoice::new(given, no_proxy, &self.means.plan.target)
            .map_err(|error| format!("-x: {error}"))?;
        if let Some(proxy) = &proxy {
            proxy.secrets().iter().for_each(|secret| self.secrets.add(secret));
        }
        self.means.route.proxy = proxy;
        Ok(())
    }

    /// Makes the handshake and the probes that follow from it. It takes no longer than the timeout,
    /// and the time for which a socket is watched.
    pub async fn run(mut self) -> Report {
        let start = Instant::now();
        let deadline = start + self.time;
        let mut redirects = Vec::new();
        let mut main = self.main(deadline).await;
        // The maximum of requests counts redirects, too.
        while self.follow && redirects.len() < 3 {
            let location =
                main.received().filter(|received| (300..400).contains(&received.head.status));
            let location = location.and_then(|received| received.head.text("location"));
            let Some(to) = location.and_then(|location| main.target.redirected(&location)) else {
                break;
            };
            redirects.push(format!("{} ({})", main.target, main.status().unwrap_or_default()));
            if to.origin() != main.target.origin() {
                self.drop_credentials();
            }
            self.means.plan.target = to;
            if self.choose_proxy().is_err() {
                break;
            }
            main = self.main(deadline).await;
        }
        let socket = main.received().and_then(|received| received.socket.as_ref());
        if let Some(socket) = socket.filter(|socket| socket.round_trip.is_none() && self.means.ping)
        {
            self.notes
                .push(format!("no pong came to the ping within {} ms", socket.time.as_millis()));
        }
        let spent = redirects.len();
        let mut seen = Observations { given: self.given.clone(), main, probes: Vec::new() };
        while seen.probes.len() + spent + 1 < MAX_REQUESTS {
            let Some(probe) = next(&seen) else { break };
            let now = Instant::now();
            if now >= deadline {
                self.notes.push(format!("no time was left for the request {}", probe.name()));
                break;
            }
            // The last one gets no less than the others.
            let left = deadline - now;
            let exchange = self.probe(&probe, now + left / 2, &seen).await;
            seen.probes.push((probe, exchange));
        }
        let judgement = judge(&seen);
        Report::new(&seen, judgement, &self.means.plan, &self.secrets, &self.notes, &redirects)
    }

    fn variant(&self) -> Variant {
        let own = self.means.plan.target.origin();
        let origin = self.given.origins.first().cloned();
        Variant {
            style: self.style,
            origin: if self.style == Style::Bare { origin } else { origin.or(Some(own)) },
            upgrade: true,
            connection_list: self.style == Style::Firefox,
        }
    }

    async fn main(&self, deadline: Instant) -> Exchange {
        let now = Instant::now();
        // The rest is for the probes.
        let until = now + deadline.saturating_duration_since(now).mul_f64(0.6);
        exchange(&self.means, &self.variant(), &Detour::default(), until).await
    }

    async fn probe(&self, probe: &Probe, until: Instant, seen: &Observations) -> Exchange {
        let mut variant = seen.main.variant.clone();
        // A socket that was closed after a while is given the same time, and a little more.
        let socket = seen.main.received().and_then(|received| received.socket.as_ref());
        let closed = socket.filter(|socket| socket.end != End::Open).map(|socket| socket.time);
        let watch = WATCH + closed.unwrap_or_default();
        let mut detour = Detour { watch: Some(watch), ..Detour::default() };
        match probe {
            Probe::Repeat => {}
            Probe::WithoutOrigin => variant.origin = None,
            Probe::OwnOrigin(origin) | Probe::OtherOrigin(origin) => {
                variant.origin = Some(origin.clone());
            }
            Probe::WithoutUpgrade => variant.upgrade = false,
            Probe::ConnectionList => variant.connection_list = true,
            Probe::ConnectionAlone => variant.connection_list = false,
            Probe::Bare => {
                variant.style = Style::Bare;
                variant.connection_list = false;
            }
            Probe::Address(address) => detour.address = Some(*address),
            Probe::Plain => detour.tls = Some(false),
            Probe::Tls => {
                detour.tls = Some(true);
                detour.only_tls = Some(b"http/1.1");
            }
            Probe::TlsHttp2 => detour.only_tls = Some(b"h2"),
            Probe::Direct(address) => detour.direct = direct_target(address).ok(),
        }
        exchange(&self.means, &variant, &detour, until).await
    }

    /// As curl does for a redirect to another host, port or scheme.
    fn drop_credentials(&mut self) {
        self.means.tls.client = None;
        (self.given.credential, self.given.client_certificate) = (false, false);
        self.given.subprotocols.retain(|name| token_in(name).is_none());
        let plan = &mut self.means.plan;
        plan.token = None;
        plan.basic = None;
        plan.cookies.clear();
        plan.headers.retain(|(name, _)| !is_credential(name));
        plan.subprotocols.retain(|name| token_in(name).is_none());
        let note = "the redirect leads to another host, port or scheme, so credentials were not sent there";
        if !self.notes.iter().any(|other| other == note) {
            self.notes.push(note.into());
        }
    }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A browser sends an origin only in its serialized form; others are sent as given, for a test of
/// the server.
fn check_origin(origin: &str) -> Result<(), String> {
    header_value("--origin", origin)?;
    if origin == "null" || origin.is_empty() || Origin::parse(origin.as_bytes()).is_ok() {
        return Ok(());
    }
    let Ok(url) = Url::parse(origin) else {
        return Err(format!("--origin: `{origin}` is no origin: use https://HOST, without a path"));
    };
    match url.origin() {
        url::Origin::Tuple(..) => {
            Err(format!("--origin: a browser sends it as `{}`", url.origin().ascii_serialization()))
        }
        url::Origin::Opaque(_) => Ok(()),
    }
}

fn header_value<'a>(option: &str, value: &'a str) -> Result<&'a str, String> {
    if value.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!("{option}: a header cannot carry control characters"));
    }
    Ok(value)
}

/// As curl reads `-H`.
fn parse_header(header: &str) -> Result<(String, Option<String>), String> {
    let wrong = "-H: a header is `NAME: VALUE`, `NAME:` to remove it, or `NAME;` for an empty one";
    if header.starts_with('@') {
        return Err("-H: files of headers are not read".into());
    }
    header_value("-H", header)?;
    let (name, value) = match header.split_once(':') {
        Some((name, value)) if value.trim().is_empty() => (name, None),
        Some((name, value)) => (name, Some(value.trim().to_owned())),
        None => (header.strip_suffix(';').ok_or(wrong)?, Some(String::new())),
    };
    let name = name.trim();
    if name.is_empty() || !name.bytes().all(is_token_byte) {
        return Err(wrong.into());
    }
    Ok((name.to_owned(), value))
}

fn token(options: &Options) -> Result<Option<(String, TokenIn)>, String> {
    let source = match &options.token_in {
        Some(source) => TokenIn::parse(source).map_err(|error| format!("--token-in: {error}"))?,
        None => TokenIn::Authorization,
    };
    let token = match (&options.token, &options.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(path)) => {
            let read = if path.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().take(1 << 20).read_to_string(&mut text).map(|_| text)
            } else {
                std::fs::read_to_string(path)
            };
            let text =
                read.map_err(|error| format!("--token-file: {}: {error}", path.display()))?;
            text.trim().to_owned()
        }
        (None, None) if options.token_in.is_some() => {
            return Err("--token-in: the token is missing: use --token or --token-file, too".into());
        }
        (None, None) => return Ok(None),
    };
    if token.is_empty() {
        return Err("--token: the token is empty".into());
    }
    let encodes = matches!(
        source,
        TokenIn::Basic | TokenIn::Query(_) | TokenIn::Kubernetes | TokenIn::Phoenix
    );
    if !encodes && !token.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err(
            "--token: a header cannot carry it: it has characters other than visible ASCII".into(),
        );
    }
    match source {
        TokenIn::Cookie(_) if token.contains([';', ' ', '"', ',']) => {
            Err("--token: a cookie cannot carry spaces, quotes, commas and semicolons".into())
        }
        TokenIn::Subprotocol(_) | TokenIn::Pair(_) if !token.bytes().all(is_token_byte) => Err(
            "--token: a subprotocol cannot carry spaces, commas, slashes, quotes, equal signs or colons: use its \
             base64url form"
                .into(),
        ),
        source => Ok(Some((token, source))),
    }
}

fn route(options: &Options) -> Result<RouteOptions, String> {
    let mut route = RouteOptions {
        ipv6: if options.ipv4 { Some(false) } else { options.ipv6.then_some(true) },
        proxy_tls: TlsOptions::new(
            options.proxy_insecure,
            "--proxy-cacert",
            options.proxy_cacert.as_deref(),
        )?,
        ..RouteOptions::default()
    };
    for entry in &options.resolve {
        let wrong = || format!("--resolve: `{entry}` is not HOST:PORT:ADDRESS");
        let entry = entry.trim_start_matches(['+', '-']);
        let (host, rest) = entry.split_once(':').ok_or_else(wrong)?;
        let (port, addresses) = rest.split_once(':').ok_or_else(wrong)?;
        let addresses =
            addresses.split(',').map(|address| address.trim_matches(['[', ']']).parse());
        let addresses = addresses.collect::<Result<Vec<IpAddr>, _>>().map_err(|_| wrong())?;
        route.resolve.push((host.to_owned(), port.parse().map_err(|_| wrong())?, addresses));
    }
    for entry in &options.connect_to {
        let wrong = || format!("--connect-to: `{entry}` is not HOST1:PORT1:HOST2:PORT2");
        let [host, port, to, to_port] =
            <[String; 4]>::try_from(split_outside_brackets(entry)).map_err(|_| wrong())?;
        let number = |text: &str| match text {
            "" => Ok(None),
            _ => text.parse::<u16>().map(Some).map_err(|_| wrong()),
        };
        route.connect_to.push((host, number(&port)?, to, number(&to_port)?));
    }
    Ok(route)
}

/// Splits at colons; an IPv6 address loses its brackets.
fn split_outside_brackets(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    for character in text.chars() {
        match character {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => parts.push(String::new()),
            _ => parts.last_mut().expect("there is one from the start").push(character),
        }
    }
    parts
}

/// The target of `--direct`: without TLS, unless it is a URL that says so.
fn direct_target(direct: &str) -> Result<Target, String> {
    let url = if direct.contains("://") { direct.to_owned() } else { format!("ws://{direct}") };
    match Target::parse(&url) {
        Ok(target) if target.path() == "/" => Ok(target),
        Ok(_) => Err("--direct: HOST:PORT without a path: that of the URL is used".into()),
        Err(error) => Err(format!("--direct: {error}")),
    }
}
