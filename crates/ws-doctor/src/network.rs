//! Which hosts belong to the Internet, and which to a local network.

use std::net::IpAddr;

/// Top-level names that are not in the public name system: reserved, or customary in networks.
const LOCAL: &[&str] = &[
    "local",
    "localhost",
    "localdomain",
    "internal",
    "lan",
    "home",
    "corp",
    "intranet",
    "private",
    "arpa",
    "test",
    "invalid",
];

/// Whether a host is, by its name, one of the Internet: a page there is public, and an authority
/// that browsers trust issues a certificate for it.
pub(crate) fn is_public_name(host: &str) -> bool {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return !is_local(address);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    name.contains('.') && !LOCAL.contains(&last)
}

/// Addresses that Local Network Access protects.
pub(crate) fn is_local(address: IpAddr) -> bool {
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

#[cfg(test)]
mod tests {
    use super::is_public_name;

    #[test]
    fn names_and_addresses_of_local_networks_are_not_public() {
        for (host, public) in [
            ("app.example.com", true),
            ("app.example.com.", true),
            ("8.8.8.8", true),
            ("[2001:4860:4860::8888]", true),
            ("2001:4860:4860::8888", true),
            ("nas.local", false),
            ("NAS.Local.", false),
            ("printer.lan", false),
            ("router.home.arpa", false),
            ("backend", false),
            ("localhost", false),
            ("192.168.1.2", false),
            ("100.64.0.1", false),
            ("[::1]", false),
            ("fd00::1", false),
            ("", false),
        ] {
            assert_eq!(is_public_name(host), public, "{host}");
        }
    }
}
