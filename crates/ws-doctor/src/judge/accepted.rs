//! Remarks: the socket works from here, and may not in a browser.

use std::net::{IpAddr, SocketAddr};

use crate::{
    codes::{Code, Level, Stage},
    exchange::Outcome,
    finding::Finding,
    probe::{Observations, Probe, is_open, is_usable},
    report::result,
    route::AttemptOutcome,
};

/// Ports that browsers never connect to (Fetch, 2.9).
const UNSAFE_PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
    102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427,
    465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990,
    993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667,
    6668, 6669, 6679, 6697, 10080,
];

/// A certificate that expires within this time is remarked.
const SOON: u64 = 14 * 86_400;

pub(crate) fn remarks(seen: &Observations) -> Vec<Finding> {
    let main = &seen.main;
    let mut remarks = Vec::new();
    if is_usable(main) {
        remarks.extend(connection_list(seen));
        remarks.extend(other_origins(seen));
    }
    if is_open(main) && main.variant.origin.is_none() {
        remarks.push(Finding::new(Code::NoOriginSent));
    }
    if UNSAFE_PORTS.contains(&main.target.port()) {
        remarks.push(Finding::new(Code::UnsafePort).because(format!(
            "browsers never connect to port {} (ERR_UNSAFE_PORT)",
            main.target.port()
        )));
    }
    let page = main.variant.origin.as_deref().unwrap_or_default();
    if page.starts_with("https:") && !main.target.tls() && !main.target.is_loopback() {
        remarks.push(Finding::new(Code::MixedContent).because(format!(
            "a page of `{page}` cannot open a socket of ws: (mixed content), except to this computer"
        )));
    }
    if is_usable(main) {
        remarks.extend(local_network(seen));
    }
    remarks.extend(addresses(seen));
    remarks.extend(certificate(seen));
    remarks
}

/// Firefox sends a list in `Connection`.
fn connection_list(seen: &Observations) -> Option<Finding> {
    let list = seen.made(&Probe::ConnectionList)?;
    let again = seen.made(&Probe::Repeat)?;
    // A credential that works once fails the second time.
    if is_usable(list) || !is_usable(again) || list.status() == Some(401) {
        return None;
    }
    Some(Finding::new(Code::ConnectionListRejected).because(format!(
        "it fails in Firefox, which sends `Connection: keep-alive, Upgrade`: the server accepts `Connection: Upgrade` \
         alone, and responds to the list with {}",
        result(list)
    )))
}

/// The first `--origin` is accepted, and another is not.
fn other_origins(seen: &Observations) -> Vec<Finding> {
    let rejected = seen.probes.iter().filter_map(|(probe, exchange)| match probe {
        Probe::OtherOrigin(origin) if !is_usable(exchange) && exchange.status() != Some(429) => {
            Some((origin, exchange))
        }
        _ => None,
    });
    rejected
        .map(|(origin, exchange)| {
            Finding::new(Code::OriginRejected)
                .because(format!(
                    "the server accepts `{}`, and rejects the origin `{origin}`: {}",
                    seen.main.variant.origin.as_deref().unwrap_or("no Origin"),
                    result(exchange)
                ))
                .fix(format!(
                    "add `{origin}` to the allowed origins of the server, if its pages may connect"
                ))
        })
        .collect()
}

fn local_network(seen: &Observations) -> Option<Finding> {
    let address = seen.main.way.connected?.ip();
    let page = seen.main.variant.origin.as_deref()?;
    let is_own = *page == seen.main.target.origin();
    if is_own || !is_public(page) || !is_local(address) || seen.main.way.proxy.is_some() {
        return None;
    }
    Some(Finding::new(Code::LocalNetworkAccess).because(format!(
        "browsers ask the user before the public page `{page}` reaches the local address {address} (Local Network \
         Access: Chromium 147, Firefox 154): until then the server sees a connection without a byte"
    )))
}

/// Whether a page has, by its name, an address of the Internet.
fn is_public(origin: &str) -> bool {
    let Ok(url) = url::Url::parse(origin) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(address)) => !is_local(address.into()),
        Some(url::Host::Ipv6(address)) => !is_local(address.into()),
        Some(url::Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            let local = [
                "local",
                "localhost",
                "internal",
                "lan",
                "home",
                "corp",
                "intranet",
                "arpa",
                "test",
            ];
            let last = name.rsplit('.').next().unwrap_or_default();
            matches!(url.scheme(), "http" | "https") && name.contains('.') && !local.contains(&last)
        }
        None => false,
    }
}

/// Addresses that Local Network Access protects.
fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || address.is_unspecified()
                || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_local(address.into()),
            None => {
                address.is_loopback()
                    || address.is_unspecified()
                    || address.is_unique_local()
                    || address.is_unicast_link_local()
            }
        },
    }
}

fn addresses(seen: &Observations) -> Vec<Finding> {
    let (main, way) = (&seen.main, &seen.main.way);
    let mut remarks = Vec::new();
    let Some(connected) = way.connected else { return remarks };
    for attempt in way.attempts.iter().filter(|attempt| attempt.address != connected) {
        let address = attempt.address;
        let is_dead = match &attempt.outcome {
            AttemptOutcome::Pending(_) => true,
            AttemptOutcome::Failed(kind, _) => *kind != std::io::ErrorKind::ConnectionRefused,
            AttemptOutcome::Connected => false,
        };
        if is_dead && address.is_ipv6() && connected.is_ipv4() {
            remarks.push(Finding::new(Code::DeadIpv6).because(format!(
                "the IPv6 address {} of the server does not respond, and {} does: clients that try only the first \
                 address hang or fail",
                address.ip(),
                connected.ip()
            )));
        } else if let AttemptOutcome::Failed(_, error) = &attempt.outcome {
            let finding = Finding::new(Code::AddressesDiffer).because(format!(
                "nothing listens at {address}, and something does at {connected}: clients that try only the first address, such as Node 17 to 19, fail ({error})"
            ));
            remarks.push(finding.fix(format!(
                "let the server listen on {}, too, or use {} in the URL in place of `{}`",
                address.ip(),
                SocketAddr::new(connected.ip(), 0).to_string().trim_end_matches(":0"),
                main.target.host()
            )));
        }
    }
    remarks.extend(other_address(seen));
    remarks
}

/// The other address responds differently. It is an error if only that one works.
pub(super) fn other_address(seen: &Observations) -> Option<Finding> {
    let connected = seen.main.way.connected?;
    let (address, exchange) = seen.probes.iter().find_map(|(probe, exchange)| match probe {
        Probe::Address(address) => Some((address, exchange)),
        _ => None,
    })?;
    let differs =
        exchange.status() != seen.main.status() || is_usable(exchange) != is_usable(&seen.main);
    // Without a connection there is nothing to compare.
    let is_there = exchange.way.connected.is_some() && exchange.status() != Some(429);
    (differs && is_there).then(|| {
        let finding = Finding::new(Code::AddressesDiffer).because(format!(
            "the name `{}` has two addresses that respond differently: {}: {}; {}: {}",
            seen.main.target.host(),
            connected.ip(),
            result(&seen.main),
            address.ip(),
            result(exchange)
        ));
        if is_usable(exchange) {
            Finding { level: Level::Error, stage: Stage::Rejected, ..finding }
        } else {
            finding
        }
    })
}

fn certificate(seen: &Observations) -> Option<Finding> {
    if matches!(&seen.main.outcome, Outcome::Failed(crate::exchange::Fault::Tls(..))) {
        return None;
    }
    let certificate = seen.main.tls.as_ref()?.chain.first()?;
    let left = certificate.not_after.checked_sub(seen.given.now)?;
    (left < SOON).then(|| {
        Finding::new(Code::CertificateExpiresSoon).because(format!(
            "the certificate of `{}` expires on {}, in {} days",
            certificate.subject,
            certificate.valid.1,
            left / 86_400
        ))
    })
}
